"""Parameters, statistics and optimizer states in any containers: trained, saved, resumed, measured.

What cannot be trained or saved is said before anything is written.
"""

import dataclasses
import json
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from runs import VIEW, killed_after_saving, rows, same
from samscale import cli, kernels, own_task, pruning, tasks
from samscale.config import Config
from samscale.flatness import operators
from samscale.training import folder, leaves, measured, run, snapshots

KEY = jax.random.key(0)
OWN = Config(num_neurons=(8,), num_epochs=2, batch_size=200, checkpoint_seconds=0.0)
EXAMPLES = {
    name: dataclasses.replace(OWN, task=f"examples.task_{name}:get_task", snapshot_every=1)
    for name in ("nnx", "equinox")
}
EXAMPLES["nnx"] = dataclasses.replace(EXAMPLES["nnx"], micro_batches=2)  # statistics are merged
EXAMPLES["equinox"] = dataclasses.replace(EXAMPLES["equinox"], pruner="magnitude", sparsity=0.5)


def needs(name):
    if name == "equinox":
        pytest.importorskip("equinox")


class Pair(NamedTuple):
    weight: Any
    bias: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Data:
    w: Any
    b: Any


@flax.struct.dataclass
class Struct:
    kernel: Any
    name: str = flax.struct.field(pytree_node=False, default="static")


class Node:
    """A container of a user's own, whose children have no names."""

    def __init__(self, *children):
        self.children = children


class Twins(Node):
    """One that gives both of its children one name."""


jax.tree_util.register_pytree_node(Node, lambda n: (n.children, None), lambda _, c: Node(*c))
jax.tree_util.register_pytree_with_keys(
    Twins,
    lambda n: ([(jax.tree_util.GetAttrKey("twin"), c) for c in n.children], None),
    lambda _, c: Twins(*c),
)


def trained_leaves(key):
    """Parameters in containers of every kind; the bfloat16 kernel is a parameter like others."""
    draw = lambda i, *shape: 0.3 * jax.random.normal(jax.random.fold_in(key, i), shape)
    first = Pair(draw(0, 5, 4).astype(jnp.bfloat16), draw(1, 4))
    second = {"data": Data(draw(2, 4, 4), draw(3, 4)), "none": None, "empty": jnp.zeros((0, 3))}
    return [first, second, (Struct(draw(4, 4, 4)),), Node(draw(5, 4, 2), jnp.full((2,), 0.0)), 0.5]


def carried_leaves(key):
    """Statistics of every kind of number, typed random keys among them."""
    odd = {name: jnp.ones(3, name) for name in ("float8_e4m3fn", "int4", "bool", "uint8")}
    keys = {"typed": jax.random.split(key, 2), "raw": jax.random.key_data(key), "mean": 1.5}
    return Twins({"count": jnp.int32(0), "python": 3, "mean": jnp.zeros(2), **odd}, keys)


def zoo_loss(params, stats, batch, key, train):
    (first, second, (third,), (*last, scale)) = (*params[:3], (*params[3].children, params[4]))
    h = jnp.tanh(batch["x"] @ first.weight.astype("float32") + first.bias[None])
    h = jnp.tanh(h @ second["data"].w + second["data"].b[None]) @ third.kernel
    outputs = scale * (h @ last[0] + last[1][None])
    numbers, keys = stats.children
    if train:
        key = jax.random.fold_in(keys["typed"][1], numbers["count"])
        outputs = outputs + 0.1 * jax.random.normal(key, outputs.shape)
        after = {"count": numbers["count"] + 1, "mean": outputs.mean(0)}
        stats = Twins(numbers | after, keys | {"typed": jax.vmap(one_on)(keys["typed"])})
    weight = batch.get("weight", jnp.ones(len(outputs)))
    return tasks.cross_entropy(outputs, batch["y"], weight), stats


def one_on(key):
    return jax.random.split(key)[0]


def zoo_data():
    x = np.random.default_rng(0).normal(size=(200, 5)).astype("float32")
    return {"x": x, "y": (x[:, 0] > 0).astype("int32")}


def zoo(config):
    init = lambda key: (trained_leaves(key), carried_leaves(key))
    return tasks.Task(zoo_data(), zoo_data(), zoo_data(), init, zoo_loss)


CONFIGS = EXAMPLES | {"zoo": dataclasses.replace(OWN, task="test_containers:zoo", batch_size=50)}


@pytest.fixture(scope="module", params=CONFIGS)
def trained(request, tmp_path_factory):
    """A config and the folder of its run, uninterrupted."""
    needs(request.param)
    config, workdir = CONFIGS[request.param], tmp_path_factory.mktemp(request.param)
    run.train(config, workdir, VIEW())
    return config, workdir / config.run_id


def test_a_run_in_any_containers_that_was_stopped_ends_with_the_same_bits(
    trained, tmp_path, monkeypatch
):
    config, whole = trained
    with killed_after_saving(2, monkeypatch):
        run.train(config, tmp_path, VIEW())
    assert not folder.is_done(tmp_path / config.run_id)
    run.train(config, tmp_path, VIEW())
    same(tmp_path / config.run_id, whole)


def test_replicas_save_and_resume_what_runs_alone_do(trained, tmp_path, monkeypatch):
    config, whole = trained
    configs = [dataclasses.replace(config, seed=seed) for seed in (0, 1)]
    with killed_after_saving(3, monkeypatch):
        run.train_together(configs, tmp_path, VIEW())
    run.train_together(configs, tmp_path, VIEW())
    for one, other in zip(rows(tmp_path / config.run_id), rows(whole), strict=True):
        assert one["step"] == other["step"]
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-4)


def test_the_state_of_a_folder_has_the_containers_of_the_task(trained):
    config, path = trained
    params, stats = jax.eval_shape(tasks.build(config).init, KEY)
    state = measured.load(path)[2]
    assert jax.tree.structure(state.params) == jax.tree.structure(params)
    assert jax.tree.structure(state.stats) == jax.tree.structure(stats)
    dtypes = lambda tree: [leaf.dtype for leaf in jax.tree.leaves(tree)]
    assert dtypes((state.params, state.stats)) == dtypes((params, stats))
    for epoch in snapshots.epochs(path):
        kept = snapshots.load(path, epoch, params)
        assert jax.tree.structure(kept) == jax.tree.structure(params)


@pytest.mark.parametrize("name", EXAMPLES)
def test_flatness_of_modules_is_measured(name, tmp_path):
    needs(name)
    run.train(EXAMPLES[name], tmp_path, VIEW())
    path = tmp_path / EXAMPLES[name].run_id
    words = ["samscale", "flatness", str(path), "--measure=path,layers", "--examples=20"]
    words.append("--trust")  # the task of these runs is not a part of samscale
    assert cli.main(words) == 0
    found = json.loads((path / "flatness.json").read_text())
    assert found["lambda_1/head"] > 0
    assert found["beta_hat"] > 0


@pytest.mark.parametrize(
    "name, layers",
    [("nnx", "head hidden norm"), ("equinox", "head hidden/layers/0 hidden/layers/1 norm")],
)
def test_kernels_and_layers_of_modules_have_the_names_that_users_give(name, layers):
    needs(name)
    params, _ = jax.jit(tasks.build(EXAMPLES[name]).init)(KEY)
    assert " ".join(sorted(operators.of_layers(params))) == layers
    masks = pruning.make_mask(jax.tree.map(jnp.abs, params), 0.5, "layer", exempt=("head",))
    for (path, mask), leaf in zip(
        jax.tree_util.tree_leaves_with_path(masks), jax.tree.leaves(params), strict=True
    ):
        pruned = leaf.ndim == 2 and "head" not in kernels.names(path)
        assert mask.size == (leaf.size if pruned else 1)
        assert float(mask.sum()) == (leaf.size / 2 if pruned else 1)


def everything():
    odd = {"scalars": [True, 2, 0.1, 1j], "rbg": jax.random.key(1, impl="rbg")}
    return {"params": trained_leaves(KEY), "stats": carried_leaves(KEY), "odd": odd}


def bits_of(leaf):
    return np.asarray(jax.random.key_data(leaf) if leaves.is_key(leaf) else leaf).tobytes()


def test_what_is_saved_is_what_is_read_in_every_dtype():
    tree = everything()
    found = leaves.fill(leaves.read(leaves.to_bytes(tree)), tree)
    assert jax.tree.structure(found) == jax.tree.structure(tree)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(tree), strict=True):
        assert bits_of(one) == bits_of(other)
        assert jax.typeof(one).dtype == jax.typeof(other).dtype


@pytest.mark.parametrize(
    "other, words",
    [
        ({"a": jnp.ones((2, 3))}, r"its leaf \['a'\] is float32\[3,2\], not float32\[2,3\]"),
        ({"a": jnp.ones((3, 2), "int32")}, r"\['a'\] is float32\[3,2\], not int32\[3,2\]"),
        ({"a": KEY}, r"\['a'\] is float32\[3,2\], not key<fry>\[\]"),
        ({"a": 1.0}, r"\['a'\] is float32\[3,2\], not float"),
        ({"b": jnp.ones((3, 2))}, r"it has no leaf \['b'\]"),
        ({}, r"its leaf \['a'\] is not one of this run's"),
    ],
)
def test_what_does_not_fit_is_named(other, words):
    saved = leaves.read(leaves.to_bytes({"a": jnp.ones((3, 2))}))
    with pytest.raises(ValueError, match=words):
        leaves.fill(saved, other)


def test_a_random_key_of_another_generator_does_not_fit():
    saved = leaves.read(leaves.to_bytes([jax.random.key(0, impl="rbg")]))
    with pytest.raises(ValueError, match=r"key<rbg>\[\], not key<fry>\[\]"):
        leaves.fill(saved, [KEY])


def linear(params, stats, batch, key, train):
    outputs = batch["x"] @ params["w"]
    weight = batch.get("weight", jnp.ones(len(outputs)))
    return tasks.cross_entropy(outputs, batch["y"], weight), stats


W = jnp.ones((5, 2))


@pytest.mark.parametrize(
    "params, stats, words",
    [
        ({"w": W, "f": jnp.tanh}, {}, r"init: params\['f'\] must be an array, not a "),
        ({"w": W, "name": "relu"}, {}, r"init: params\['name'\] must be an array, not a str"),
        ({"w": W}, {"o": object()}, r"init: stats\['o'\] must be an array, not a object"),
        ({"w": W, "n": jnp.int32(1)}, {}, r"params\['n'\] must be floating-point .* int32\[\]"),
        ({"w": W, "n": 3}, {}, r"params\['n'\] must be floating-point"),
        ({"w": W, "b": jnp.array([True])}, {}, r"params\['b'\] must be floating-point .* bool"),
        ({"w": W, "k": KEY}, {}, r"params\['k'\] must be floating-point"),
        ({"w": W, "f": W.astype("float8_e5m2")}, {}, r"params\['f'\] must have at least 16 bits"),
        ({"w": jnp.ones((5, 0))}, {}, "there is nothing to train"),
    ],
)
def test_a_leaf_that_cannot_be_trained_or_saved_is_named(params, stats, words):
    task = tasks.Task(*3 * [zoo_data()], lambda key: (params, stats), linear)
    with pytest.raises(ValueError, match=words):
        own_task.check_leaves(task, 10)


@pytest.mark.parametrize(
    "new, words",
    [
        (
            lambda s: {**s, "n": s["n"] + 0.5},
            r"stats\['n'\] must stay as .* int32\[\], not",
        ),
        (
            lambda s: {},
            r"stats\['n'\] must stay as .* int32\[\], not become absent",
        ),
        (lambda s: {**s, "m": W}, r"loss: stats\['m'\] must stay as init makes it, absent"),
    ],
)
def test_statistics_that_do_not_come_back_as_they_began_are_named(new, words):
    loss = lambda params, stats, *more: (linear(params, stats, *more)[0], new(stats))
    task = tasks.Task(*3 * [zoo_data()], lambda key: ({"w": W}, {"n": jnp.int32(0)}), loss)
    with pytest.raises(ValueError, match=words):
        own_task.check_leaves(task, 10)


def test_a_leaf_that_cannot_be_saved_leaves_nothing_behind(tmp_path, monkeypatch, capsys):
    (tmp_path / "unsaved.py").write_text(
        "import numpy as np\nfrom samscale import tasks\nfrom samscale.config import Config\n"
        "def get_config(): return Config(task='unsaved:get_task')\n"
        "def loss(params, stats, batch, key, train):\n"
        "    z = params['f'](batch['x'] @ params['w'])\n"
        "    return tasks.cross_entropy(z, batch['y'], np.ones(len(z), 'float32')), stats\n"
        "def get_task(config):\n"
        "    d = {'x': np.ones((200, 3), 'float32'), 'y': np.zeros(200, int)}\n"
        "    init = lambda key: ({'w': np.ones((3, 2), 'float32'), 'f': abs}, {})\n"
        "    return tasks.Task(d, d, d, init, loss)\n"
    )
    words = ["train", f"--config={tmp_path / 'unsaved.py'}", f"--workdir={tmp_path / 'w'}"]
    assert cli.main(["samscale", *words]) == 2
    said = capsys.readouterr().err
    assert "task='unsaved:get_task': init: params['f'] must be an array, not a " in said
    assert said.count("\n") == 1
    assert not (tmp_path / "w").exists()
