"""``samscale flatness RUN_FOLDER``, and the same numbers while a run trains."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from runs import TINY
from samscale import cli, pruning
from samscale.config import Config
from samscale.flatness import MEASURES, hessian
from samscale.training import checkpoint, files, measured, record, run
from samscale.training.compiled import Compiled
from samscale.training.step import Knobs

CHEAP = "layers"


def flatness(*words):
    return cli.main(["samscale", "flatness", *map(str, words)])


def content(folder):
    return files.read_json(folder / "flatness.json")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that measures as it goes, twice."""
    workdir = tmp_path_factory.mktemp("flat")
    config = dataclasses.replace(TINY, flatness_every=1, flatness_measures=(CHEAP,))
    run.train(config, workdir)
    return workdir / config.run_id


def test_one_command_prints_and_keeps_every_number(trained, capsys):
    assert flatness(trained) == 0
    shown = capsys.readouterr().out
    numbers = content(trained)
    for name in ("lambda_1", "trace", "sam_gap", "m_sharpness_1", "s2", "alignment"):
        assert name in shown
        assert name in numbers
    assert all(name in shown for name in MEASURES)
    assert "flatness.json" in shown


def test_training_measures_what_the_command_measures(trained):
    assert flatness(trained, f"--measure={CHEAP}") == 0
    last = record.read(trained)[-1]
    for name, value in content(trained).items():
        if name.startswith("lambda_1/"):
            assert last[f"flatness_{name}"] == value


def test_it_measures_at_the_epochs_that_are_asked_for(tmp_path):
    config = dataclasses.replace(
        TINY, num_epochs=3, flatness_every=2, flatness_measures=(CHEAP,), seed=7
    )
    run.train(config, tmp_path)
    epochs = [row for row in record.read(tmp_path / config.run_id) if row["kind"] == "epoch"]
    seen = [any(name.startswith("flatness_") for name in row) for row in epochs]
    assert seen == [False, True, True]  # every other, and the last


def test_measuring_changes_neither_the_run_nor_its_name(trained, whole):
    assert trained.name == whole.name
    assert checkpoint.step(trained) == checkpoint.step(whole)
    mine, plain = (record.read(folder)[-1] for folder in (trained, whole))
    for name, value in plain.items():
        if name not in run.TIMED:
            assert mine[name] == value


def test_pruned_weights_have_no_curvature(tmp_path):
    config = dataclasses.replace(TINY, num_epochs=1, pruner="random", sparsity=0.5)
    run.train(config, tmp_path)
    config, task, state = measured.load(tmp_path / config.run_id)
    here = measured.point(config, task, state, examples=64)
    bent = flatness_of(here)
    kept = pruning.apply(state.mask, jax.tree.map(jnp.ones_like, state.params))
    kept = np.asarray(ravel_pytree(kept)[0])
    assert 0 < (kept == 0).sum() < kept.size
    assert not bent[kept == 0].any()
    assert bent[kept == 1].any()


def flatness_of(point):
    """A product with the Hessian, of all ones."""
    op = hessian(point.losses, point.params, point.data)
    return np.asarray(jax.jit(op)(jnp.ones(op.size)))


def test_batch_norm_is_measured_as_in_evaluation():
    config = Config(model="ResNet18", num_filters=2, num_blocks=(1,), batch_size=8, rho=0.1)
    compiled = Compiled(config.validate())
    start = compiled.init(Knobs.of(config), dict(compiled.task.train), None)
    here = measured.point(config, compiled.task, start, examples=16)
    moved = jax.tree.map(lambda s: s + 1, start.stats)
    there = measured.point(config, compiled.task, start._replace(stats=moved), examples=16)
    sums, _ = compiled.task.loss(start.params, start.stats, here.data, jax.random.key(0), False)
    mean = float(here.losses(start.params, here.data).mean())
    assert mean == pytest.approx(float(sums["loss"]) / 16, rel=1e-5)
    assert np.abs(flatness_of(here) - flatness_of(there)).max() > 1e-3


def test_a_task_without_outputs_is_measured_through_its_sums():
    compiled = Compiled(TINY.validate())
    start = compiled.init(Knobs.of(TINY), dict(compiled.task.train), None)
    bare = compiled.task._replace(outputs=None, criterion=None)
    products = [
        flatness_of(measured.point(TINY, task, start, examples=32))
        for task in (compiled.task, bare)
    ]
    np.testing.assert_allclose(*products, rtol=1e-4, atol=1e-5)


def test_json_on_the_screen_is_the_file(trained, capsys):
    assert flatness(trained, f"--measure={CHEAP}", "--json", "--examples=0", "--rho=0.3") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == content(trained)
    assert shown["rho"] == 0.3
    assert shown["examples"] > 100


def test_measures_of_the_same_points_add_up_and_others_are_moved_aside(trained, capsys):
    about = ["--seed=5", "--examples=50"]
    assert flatness(trained, "--measure=layers", *about) == 0
    assert flatness(trained, "--measure=density", *about) == 0
    assert {"lambda_1/Dense_0", "trace_cubed"} < set(content(trained))
    before, _ = content(trained), capsys.readouterr()
    assert flatness(trained, "--measure=density", "--seed=6") == 0
    assert "lambda_1/Dense_0" not in content(trained)
    said = capsys.readouterr().err
    assert "flatness.json: what was measured on 50 examples (step " in said
    aside = trained / said.split()[-1]
    assert files.read_json(aside) == before


def test_double_precision_is_another_way_of_measuring(trained, capsys):
    assert flatness(trained, "--measure=layers", "--seed=4") == 0
    single = content(trained)
    assert flatness(trained, "--measure=layers", "--seed=4", "--float64") == 0
    shown, double = capsys.readouterr(), content(trained)
    assert ", in float64" in " ".join(shown.out.split())
    assert (single["float64"], double["float64"]) == (False, True)
    assert "is now earlier-flatness-" in shown.err
    name = "lambda_1/Dense_0"
    assert single[name] != double[name]
    assert float(np.float32(double[name])) != double[name]
    assert double[name] == pytest.approx(single[name], rel=1e-2)


def test_a_run_in_bfloat16_is_measured_in_float32():
    half = dataclasses.replace(TINY, half_precision=True)
    points = []
    for config in (TINY, half):
        compiled = Compiled(config.validate())
        start = compiled.init(Knobs.of(config), dict(compiled.task.train), None)
        points.append(measured.point(config, compiled.task, start, examples=32))
    one, other = (np.asarray(p.losses(p.params, p.data)) for p in points)
    np.testing.assert_array_equal(one, other)


def test_names_of_measures_may_have_blanks_between(trained):
    assert flatness(trained, "--measure= layers, features ", "--seed=9") == 0
    assert {"lambda_1/Dense_0", "feature_rank"} < set(content(trained))


def test_infinite_numbers_are_said_and_not_kept(trained, capsys, monkeypatch):
    known = {
        "largest_stable_rate_sgd": np.inf,
        "trace": 2.0,
        "trace_se": 0.1,
        "odd": np.inf,
        "broken": np.nan,
    }
    monkeypatch.setitem(MEASURES, CHEAP, lambda point, key: known)
    MEASURES[CHEAP].__doc__ = "."
    assert flatness(trained, f"--measure={CHEAP}", "--json", "--seed=8") == 0
    shown = capsys.readouterr()
    assert "largest_stable_rate_sgd: infinite, nothing bends\nodd: infinite\n" in shown.err
    assert "broken: not a number\n" in shown.err
    kept = json.loads(shown.out)
    assert kept == content(trained)
    assert kept["trace"] == 2.0
    assert not {"odd", "broken", "largest_stable_rate_sgd"} & kept.keys()


def test_what_did_not_converge_is_said(trained, capsys, monkeypatch):
    known = {"lambda_min": -1.0, "lambda_min_residual": 0.5, "lambda_min_converged": 0.0}
    monkeypatch.setitem(MEASURES, CHEAP, lambda point, key: {**known, "trace": 2.0})
    MEASURES[CHEAP].__doc__ = "."
    assert flatness(trained, f"--measure={CHEAP}", "--seed=7") == 0
    lines = capsys.readouterr().out.splitlines()
    assert ["not converged" in line for line in lines if "lambda_min" in line] == [True]
    assert not any("not converged" in line for line in lines if "trace" in line)


@pytest.mark.parametrize("text", ["[1, 2]", "null", '{"seed"', '{"hills": 1}'])
def test_a_config_that_cannot_be_read_is_a_sentence_with_its_path(text, tmp_path, capsys):
    (tmp_path / "config.json").write_text(text)
    assert flatness(tmp_path) == 1
    assert "config.json: damaged; put it back" in capsys.readouterr().err


def test_a_checkpoint_of_another_network_is_refused(whole, tmp_path, capsys):
    fields = dataclasses.asdict(dataclasses.replace(TINY, num_neurons=(7,)))
    files.write_json(tmp_path / "config.json", fields)
    (tmp_path / checkpoint.NAME).write_bytes((whole / checkpoint.NAME).read_bytes())
    assert flatness(tmp_path) == 1
    assert "is float32[8], not float32[7]" in capsys.readouterr().err


def test_missing_labels_leave_the_loss_the_trained_one():
    compiled = Compiled(TINY.validate())
    start = compiled.init(Knobs.of(TINY), dict(compiled.task.train), None)

    def loss(params, stats, batch, key, train):
        sums, stats = compiled.task.loss(params, stats, batch, key, train)
        return {**sums, "count": 4 * sums["count"]}, stats  # four labels an example

    task = compiled.task._replace(loss=loss)
    ones, fours = (measured.point(TINY, t, start, examples=32) for t in (compiled.task, task))
    mean = lambda point: float(point.losses(point.params, point.data).mean())
    assert mean(fours) == pytest.approx(mean(ones) / 4, rel=1e-5)
    assert fours.outputs is None


def test_the_list_explains_every_measure(capsys):
    assert flatness("--list") == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in MEASURES)


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["--measure=curvature,hills"], "measure='hills': choose some of curvature"),
        (["--measure=,"], "measure=',': choose some of curvature"),
        (["--measure="], "measure='': choose some of curvature"),
        ([f"--seed={2**32}"], f"seed={2**32}: must be between 0 and {2**32 - 1}"),
        (["--examples=-1"], "examples=-1: must be at least 0 (all)"),
        (["--seed=-2"], "seed=-2: must be between 0 and"),
        (["--rho=inf"], "rho=inf: must be finite and greater than 0"),
        (["--rho=0"], "rho=0.0: must be finite and greater than 0"),
    ],
)
def test_wrong_words_are_a_sentence_and_write_nothing(words, sentence, whole, capsys):
    assert flatness(whole, *words) == 2
    assert sentence in capsys.readouterr().err
    assert not (whole / "flatness.json").exists()


def test_what_is_no_run_is_said(tmp_path, capsys):
    assert flatness(tmp_path) == 2
    assert "must be a run folder, with a config.json" in capsys.readouterr().err
    files.write_json(tmp_path / "config.json", dataclasses.asdict(TINY))
    assert flatness(tmp_path) == 2
    assert "must have a checkpoint" in capsys.readouterr().err
    (tmp_path / checkpoint.NAME).write_bytes(b"torn")
    assert flatness(tmp_path) == 1
    assert "checkpoint.msgpack: damaged; move it away" in capsys.readouterr().err


def test_unknown_measures_of_a_config_are_refused():
    with pytest.raises(ValueError, match="flatness_measures='hills': choose one of"):
        run.ready(Config(flatness_measures=("hills",)))
