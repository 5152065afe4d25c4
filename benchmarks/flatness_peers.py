r"""What measuring curvature costs beside PyHessian 0.1 and curvlinops 3.0.1, in one process.

The same parameters and data in all, float32, each library with as many threads as it takes. Their
programs take turns with ours, compiled, and the fastest round counts. Torch's threads spin while
they wait for one another, so that beside other work its programs take ten times as long: measure on
a machine at rest, or under ``OMP_WAIT_POLICY=PASSIVE``. PyHessian's release calls ``torch.eig``,
which is gone; ``torch.linalg.eigh`` stands in for it.
"""

import functools
import math
import warnings
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timing import Row, best
from samscale.flatness import estimates, krylov, operators
from samscale.losses import exact_cross_entropy

KEY = jax.random.key(0)
PROBES, STEPS, STARTS = 100, 80, 5
CURVLINOPS = 2.4  # times faster than it


class Network(NamedTuple):
    sizes: tuple[int, ...]
    examples: int
    bend: Callable
    repeats: int  # of a program in a round, so that none is over before threads wake
    eigenvalue: float  # times faster than PyHessian, as are the next two
    trace: float
    density: float


NETWORKS = (
    Network((784, 300, 100, 10), 1000, jax.nn.relu, 1, 1.35, 1.4, 1.5),
    Network((20, 32, 32, 3), 100, jnp.tanh, 5, 10, 10, 10),
)


class Hessian(NamedTuple):
    """The same one of ours and theirs."""

    ours: operators.Operator
    pyhessian: Any
    curvlinops: Any


def rows():
    try:
        import curvlinops  # noqa: F401
        import pyhessian  # noqa: F401
    except ImportError as absent:
        print(f"{absent.name} is not installed here: no row compares curvature with that of others")
        return
    for network in NETWORKS:
        h = _hessian(network)
        for measure in (_eigenvalue, _trace, _density, _product):
            yield from measure(network, h)
    yield _invented()


def _hessian(network):
    import curvlinops
    import torch

    keys = iter(jax.random.split(KEY, 9))
    uniform = lambda shape, bound: jax.random.uniform(
        next(keys), shape, minval=-bound, maxval=bound
    )
    shapes = list(pairwise(network.sizes))
    params = [(uniform((a, b), a**-0.5), uniform((b,), a**-0.5)) for a, b in shapes]
    x = jax.random.normal(next(keys), (network.examples, network.sizes[0]))
    y = jax.random.randint(next(keys), (network.examples,), 0, network.sizes[-1])

    def losses(params, batch):
        z = batch["x"]
        for i, (w, b) in enumerate(params):
            z = (network.bend(z) if i else z) @ w + b[None]
        return exact_cross_entropy(z, batch)

    tensor = lambda a: torch.tensor(np.array(a))

    def model():
        layers = []
        for w, b in params:
            layer = torch.nn.Linear(*w.shape)
            layer.weight.data, layer.bias.data = tensor(w.T), tensor(b)
            layers += [torch.nn.Tanh() if network.bend is jnp.tanh else torch.nn.ReLU(), layer]
        return torch.nn.Sequential(*layers[1:])

    own, criterion, data = model(), torch.nn.CrossEntropyLoss(), (tensor(x), tensor(y).long())
    return Hessian(
        operators.hessian(losses, params, {"x": x, "y": y}),
        _pyhessian(model(), criterion, data),
        curvlinops.HessianLinearOperator(
            own, criterion, list(own.parameters()), [data], check_deterministic=False
        ),
    )


def _pyhessian(model, criterion, data):
    from pyhessian import hessian

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that its graph stays in the gradients
        return hessian(model, criterion, data=data, cuda=False)


def _compared(network, name, what, programs, notes):
    """Rows of ours beside each of the others."""
    again = lambda run: lambda: [run() for _ in range(network.repeats)]
    programs = {peer: again(run) for peer, run in programs.items()}
    for run in programs.values():
        run()
    seconds = best(programs, rounds=5)
    for peer, note in notes.items():
        ours, theirs = (1e3 * seconds[who] / network.repeats for who in ("ours", peer))
        aim = getattr(network, name) if peer == "PyHessian" else CURVLINOPS
        yield Row(
            f"{'-'.join(map(str, network.sizes))}, {what}: ours / {peer}",
            ours / theirs,
            f"{ours:.1f} ms against {theirs:.1f} ms; {note}",
            at_most=round(1 / aim, 3),
        )


def _eigenvalue(network, h):
    """Ours at the largest tolerance that makes its mean error at most theirs."""
    import torch

    exact = krylov.eigenpairs(h.ours, KEY, which="magnitude", tolerance=1e-6).values[0]
    error = lambda values: np.abs(np.array(values) / exact - 1)

    def ours(tolerance):
        keys = jax.random.split(KEY, STARTS)
        found = [krylov.eigenpairs(h.ours, k, 1, "magnitude", tolerance) for k in keys]
        return [f.values[0] for f in found]

    def theirs():
        torch.manual_seed(0)
        return [h.pyhessian.eigenvalues(tol=1e-3)[0][0] for _ in range(STARTS)]

    reached = error(theirs()).mean()
    tolerance = next(t for t in 0.5 * 0.8 ** np.arange(40) if error(ours(t)).mean() <= reached)
    yield from _compared(
        network,
        "eigenvalue",
        f"largest eigenvalue from {STARTS} starts, at equal true error",
        {"ours": functools.partial(ours, tolerance), "PyHessian": theirs},
        {
            "PyHessian": f"off by {100 * error(ours(tolerance)).mean():.2g} % and "
            f"{100 * reached:.2g} % on average, where it stops at a change of 0.1 %"
        },
    )


def _trace(network, h):
    from curvlinops import hutchinson_trace

    programs = {
        "ours": lambda: estimates.probed(h.ours, KEY, PROBES),
        "PyHessian": lambda: h.pyhessian.trace(maxIter=PROBES, tol=-math.inf),
        "curvlinops": lambda: hutchinson_trace(h.curvlinops, PROBES),
    }
    more = "ours with norm and diagonal"
    notes = {"PyHessian": f"{more}; its own stopping rule is off", "curvlinops": more}
    yield from _compared(network, "trace", f"trace of {PROBES} probes", programs, notes)


def _density(network, h):
    from curvlinops.papyan2020traces.spectrum import fast_lanczos

    programs = {
        "ours": lambda: estimates.spectrum(h.ours, KEY, STEPS, 1),
        "PyHessian": lambda: _pyhessian_density(h.pyhessian, STEPS),
        "curvlinops": lambda: fast_lanczos(h.curvlinops, STEPS),
    }
    what = f"density by {STEPS} Lanczos steps"
    notes = {"PyHessian": "one orthogonalization", "curvlinops": "theirs not orthogonalized"}
    yield from _compared(network, "density", what, programs, notes)


def _pyhessian_density(found, steps):
    """Nodes and weights of a run of ``steps``."""
    import torch

    def eig(matrix, eigenvectors):
        values, vectors = torch.linalg.eigh(matrix)
        return values[:, None], vectors

    with mock.patch.object(torch, "eig", eig, create=True):
        nodes, weights = found.density(iter=steps, n_v=1)
    return np.array(nodes[0]), np.array(weights[0])


@jax.jit
def _loop(op, v):
    again = lambda _, v: (w := op(v)) / jnp.linalg.norm(w)
    return jax.lax.fori_loop(0, STEPS, again, v)


def _product(network, h):
    import torch

    def theirs():
        v = torch.ones(h.ours.size)
        for _ in range(STEPS):
            w = h.curvlinops @ v
            v = w / torch.linalg.norm(w)
        return v

    v = jnp.ones(h.ours.size)
    programs = {"ours": lambda: _loop(h.ours, v).block_until_ready(), "curvlinops": theirs}
    norms = jnp.linalg.norm(h.ours(v)), torch.linalg.norm(h.curvlinops @ torch.ones(v.size))
    note = "norms of one: {:.6g} and {:.6g}".format(*norms)
    what = f"{STEPS} Hessian products in a loop"
    yield from _compared(network, "product", what, programs, {"curvlinops": note})


def _invented():
    """Nodes of a density that are no eigenvalue, of a quadratic of rank five."""
    import torch

    exact, size, steps = np.arange(6.0), 400, 50
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(size, 5)))[0]
    x = (basis * np.sqrt(exact[None, 1:])).T.astype(np.float32)
    ours = estimates.spectrum(operators.dense(x.T @ x), KEY, steps, 1).nodes[0]
    torch.manual_seed(0)
    found = _pyhessian(
        torch.nn.Linear(size, 1, bias=False),
        lambda out, y: 0.5 * (out**2).sum(),
        (torch.tensor(x), torch.zeros(5)),
    )
    theirs, weights = _pyhessian_density(found, steps)
    invented = lambda nodes: (np.abs(nodes[:, None] - exact[None]).min(1) > 0.01).sum()
    return Row(
        f"nodes of a density of {steps} steps that are no eigenvalue of 0, 1, 2, 3, 4, 5: ours",
        invented(ours),
        f"PyHessian's: {invented(theirs)}, from {theirs.min():.1f} to {theirs.max():.1f}, with "
        f"weights that sum to {weights.sum():.2f}",
        at_most=0.5,
    )
