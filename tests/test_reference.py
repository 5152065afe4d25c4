"""The released program's own trajectories, followed by this program's training loop.

Runs every entry of ``manifest.json`` in the folder ``SAMSCALE_REFERENCE``; any folder in the same
format will do.
"""

import json
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from samscale import data, models, tasks
from samscale.config import Config
from samscale.training import program
from samscale.training.step import Knobs

FOLDER = os.environ.get("SAMSCALE_REFERENCE")
needs_folder = pytest.mark.skipif(
    not FOLDER, reason="SAMSCALE_REFERENCE is unset: no trajectories to follow"
)


def manifest():
    path = pathlib.Path(FOLDER or "") / "manifest.json"
    return json.loads(path.read_text()) if FOLDER and path.exists() else {}


def arrays(name):
    with np.load(pathlib.Path(FOLDER) / name) as file:
        return dict(file)


def nested(flat, prefix):
    """{"init/params/Dense_0/kernel": w, ...} -> {"Dense_0": {"kernel": w}, ...}"""
    inside = {k.removeprefix(prefix): v for k, v in flat.items() if k.startswith(prefix)}
    return traverse_util.unflatten_dict(inside, sep="/")


def batches(entry, steps, dtype):
    """Examples one after another, and how many make a batch."""
    if entry["inputs"] in data.DATASETS:
        if not os.environ.get("SAMSCALE_DATA"):
            pytest.skip("SAMSCALE_DATA is unset: no data set to train on")
        d = data.load(entry["inputs"], validation_fraction=0)
        n = steps * entry["batch_size"]
        x, y = d.normalize(d.train["x"][:n]), d.train["y"][:n]
        return {"x": np.asarray(x, dtype), "y": y}, entry["batch_size"]
    inputs = arrays(entry["inputs"])
    x, y = (inputs[k] for k in sorted(inputs, key=lambda k: -inputs[k].ndim))
    size = x.shape[1]
    return {"x": x.reshape(-1, *x.shape[2:]).astype(dtype), "y": y.reshape(-1).astype(int)}, size


def task_of(entry, examples, num_classes):
    knobs = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
    wanted = ("num_neurons", "num_filters", "num_blocks")
    knobs = {k: v for k, v in knobs.items() if k in wanted}
    model = models.build(entry["model"], num_classes, **knobs)
    example = {"x": examples["x"][:1]}
    functions = tasks.supervised(model, tasks.cross_entropy, example)
    return tasks.Task(examples, {}, {}, *functions)


def head(params):
    """Of Dense_0, ..., Dense_10 the last."""
    dense = [name for name in params if name.startswith("Dense_")]
    return params[max(dense, key=lambda name: int(name.removeprefix("Dense_")))]


def close(received, expected, rtol):
    """As vectors: leaf by leaf, the distance is at most ``rtol`` of the length."""
    expected = traverse_util.flatten_dict(expected, sep="/")
    received = traverse_util.flatten_dict(received, sep="/")
    assert set(received) == set(expected)
    for path, leaf in expected.items():
        distance = np.linalg.norm(np.asarray(received[path] - leaf, np.float64))
        assert distance <= rtol * np.linalg.norm(leaf) + 1e-12, path


@needs_folder
def test_the_folder_has_a_manifest():
    path = pathlib.Path(FOLDER) / "manifest.json"
    assert path.is_file(), f"SAMSCALE_REFERENCE={FOLDER}: there is no manifest.json"


def test_the_head_is_the_last_layer_by_number():
    params = {f"Dense_{i}": i for i in range(12)} | {"Conv_0": -1}
    assert head(params) == 11


@needs_folder
@pytest.mark.parametrize("entry", manifest().get("trajectories", []), ids=lambda e: e["file"])
def test_the_released_trajectory_is_followed(entry):
    with jax.enable_x64(entry["dtype"] == "float64"):
        file = arrays(entry["file"])
        dtype = np.dtype(entry["dtype"])
        rho, learning_rate, momentum, weight_decay = (float(h) for h in file["hyper"])
        examples, batch_size = batches(entry, len(file["loss"]), dtype)
        params = nested(file, "init/params/")
        num_classes = head(params)["bias"].size
        config = Config(
            optimizer=entry["optimizer"],
            batch_size=batch_size,
            num_epochs=1,
            momentum=momentum,
            lr_scheduler="constant",
        )
        p = program.build(config, task_of(entry, examples, num_classes))
        knobs = Knobs(0, dtype.type(rho), dtype.type(learning_rate), dtype.type(weight_decay))
        order = np.arange(len(examples["y"])).reshape(-1, batch_size)

        state = jax.jit(p.init)(knobs, examples, order)
        stats = {"batch_stats": s} if (s := nested(file, "init/batch_stats/")) else {}
        shapes = lambda tree: jax.tree.map(lambda x: x.shape, tree)
        assert shapes((state.params, state.stats)) == shapes((params, stats))
        floats = lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x
        state = jax.tree.map(floats, state)._replace(params=params, stats=stats)
        state, infos = jax.jit(p.advance)(state, examples, order, 0, len(order), knobs)

        rtol = entry["rtol"]
        np.testing.assert_allclose(infos["loss"] / batch_size, file["loss"], rtol=rtol)
        np.testing.assert_allclose(infos["accuracy"] / batch_size, file["accuracy"], rtol=1e-6)
        close(state.params, nested(file, "final/params/"), rtol)
        close(state.stats.get("batch_stats", {}), nested(file, "final/batch_stats/"), rtol)


@needs_folder
@pytest.mark.skipif("snip_scores" not in manifest(), reason="the manifest lists no SNIP scores")
def test_the_released_snip_scores_are_computed():
    from samscale import pruning

    entry = manifest()["snip_scores"]
    file = arrays(entry["params_of"])
    params, stats = nested(file, "init/params/"), nested(file, "init/batch_stats/")
    examples, size = batches(entry, 1, np.float32)
    batch = {name: jnp.asarray(a[:size]) for name, a in examples.items()}
    (model,) = (e for e in manifest()["trajectories"] if e["file"] == entry["params_of"])
    task = task_of(model, examples, head(params)["bias"].size)

    def loss(params):
        stats_of = {"batch_stats": stats} if stats else {}
        sums, _ = task.loss(params, stats_of, batch, jax.random.key(0), True)
        return tasks.means(sums)["loss"]

    scores = pruning.PRUNERS["snip"].score(None, params, lambda: jax.grad(loss)(params))
    close(scores, nested(arrays(entry["file"]), ""), entry["rtol"])
