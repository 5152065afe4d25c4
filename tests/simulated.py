"""Tables of runs whose truth is known: by hand, or a thousand simulated studies, a panel each."""

import itertools

import numpy as np
import pandas as pd

from samscale.study.analysis import Design

RHO = Design(("rho",))
PLAIN = Design(())
RADII = (0.05, 0.1, 0.2)
STUDIES = 1000


def run(method, seed, value, x=10.0, rho=np.nan, **changes):
    """One finished run, as the runner reports it."""
    row = {"panel": "", "size": f"[{x:g}]", "x": x, "method": method, "rho": rho, "seed": seed}
    row |= {"select": value, "value": value, "status": "done", "reason": "", "run_id": "r"}
    row |= {"num_params": x, "seconds": 1.0, "gradients": 2.0, "memory": np.nan}
    return row | changes


def table(*rows):
    return pd.DataFrame(list(rows))


def only(frame, **where):
    """The one row that agrees with ``where``."""
    for name, value in where.items():
        frame = frame[frame[name] == value]
    (row,) = frame.itertuples()
    return row


def simulate(truth, *, studies=1, sizes=5, seeds=5, radii=(), seed=0, noise=0.01, shared=0.0):
    """Studies of sgd and sam, a panel each: value = truth(method, k, rho) + noise of test data.

    ``shared`` is the part of the noise that test and validation data have in common (training).
    """
    arms = [("sgd", np.nan), *(("sam", rho) for rho in radii or [np.nan])]
    axes = itertools.product(range(studies), range(sizes), arms, range(seeds))
    panel, k, arm, repeat = zip(*axes, strict=True)
    method, rho = zip(*arm, strict=True)
    rng = np.random.default_rng(seed)
    luck, test, validation = rng.normal(size=(3, len(panel))) * noise
    expected = np.array([truth(*key) for key in zip(method, k, rho, strict=True)])
    expected = expected + np.sqrt(shared) * luck
    x = 10.0 * 4.0 ** np.array(k)
    frame = {"panel": [f"study={p}" for p in panel], "size": [f"[{v:g}]" for v in x], "x": x}
    frame |= {"method": method, "rho": rho, "seed": repeat, "status": "done", "reason": ""}
    frame["value"] = expected + np.sqrt(1 - shared) * test
    frame["select"] = expected + np.sqrt(1 - shared) * validation
    return pd.DataFrame(frame | {"seconds": 1.0, "gradients": 1.0})


def flat(method, k, rho):
    """No effect of anything."""
    return 0.9


def growing(method, k, rho):
    """One point more per size, that is 0.01 / log10(4) per factor of ten."""
    return 0.8 + 0.01 * k * (method == "sam")


def said(found, *words):
    return [text for text in found.warnings if all(word in text for word in words)]
