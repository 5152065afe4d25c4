"""Runs on disk: whatever happens to a run, its folder is right and it ends with the same bits."""

import errno
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from samscale import errors
from samscale.config import Config, from_mapping
from samscale.training import checkpoint, files, folder, progress, record, run

TINY = Config(num_neurons=(8,), num_epochs=3, batch_size=100, checkpoint_seconds=0.0)
VIEW = progress.Silent


def rows(path):
    """The record without what a clock says."""
    return [{k: v for k, v in row.items() if k not in run.TIMED} for row in record.read(path)]


def bits(path):
    return (path / checkpoint.NAME).read_bytes()


def saved(path):
    """What a checkpoint holds, but for the seconds."""
    from flax import serialization

    tree = serialization.msgpack_restore(bits(path))
    tree.pop("seconds")
    return tree


def same(first, second):
    assert rows(first) == rows(second)
    jax.tree.map(np.testing.assert_array_equal, saved(first), saved(second))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of an uninterrupted run of ``TINY``."""
    workdir = tmp_path_factory.mktemp("whole")
    run.train(TINY, workdir, VIEW())
    return workdir / TINY.run_id


def test_a_run_folder_holds_config_environment_record_checkpoint_and_done(whole):
    names = {path.name for path in whole.iterdir()} - {".lock"}
    assert names == {
        "config.json",
        "environment.json",
        "metrics.jsonl",
        checkpoint.NAME,
        "done",
    }
    assert from_mapping(json.loads((whole / "config.json").read_text())) == TINY
    assert json.loads((whole / "environment.json").read_text())["versions"]["jax"]


def test_same_config_same_numbers(whole, tmp_path):
    run.train(TINY, tmp_path, VIEW())
    same(tmp_path / TINY.run_id, whole)


def test_a_finished_run_says_so_and_returns_what_it_found(whole, capsys):
    before = bits(whole), rows(whole)
    final = run.train(TINY, whole.parent, progress.Lines())
    assert "done before" in capsys.readouterr().out
    assert final["kind"] == "final"
    assert (bits(whole), rows(whole)) == before


def test_a_last_line_names_the_best_by_validation_and_the_final_test_accuracy(whole, capsys):
    final = rows(whole)[-1]
    epochs = [row for row in rows(whole) if row["kind"] == "epoch"]
    best = max(epochs, key=lambda row: row["validation_accuracy"])
    assert final["best_epoch"] == best["epoch"]
    assert final["test_accuracy_at_best_validation"] == best["test_accuracy"]
    assert final["test_accuracy"] == epochs[-1]["test_accuracy"]


@pytest.mark.parametrize("when", range(1, 6))
def test_a_run_stopped_after_any_chunk_ends_like_one_that_was_not(
    whole, tmp_path, monkeypatch, when
):
    saves = []

    def save_and_die(path, tree, save=checkpoint.save):
        save(path, tree)
        saves.append(1)
        if len(saves) == when:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            run.train(TINY, tmp_path, VIEW())
    path = tmp_path / TINY.run_id
    assert not folder.is_done(path)
    run.train(TINY, tmp_path, VIEW())
    same(path, whole)


def test_lines_after_the_checkpoint_are_written_again_and_a_torn_one_is_dropped(
    whole, tmp_path, monkeypatch
):
    def die(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", die)  # nothing is ever saved
        with pytest.raises(KeyboardInterrupt):
            run.train(TINY, tmp_path, VIEW())
    path = tmp_path / TINY.run_id
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "epoch", "step": 99999}\n{"kind": "ep')
    assert record.read(path)[-1]["step"] == 99999
    run.train(TINY, tmp_path, VIEW())
    same(path, whole)


def command(workdir, *more):
    fields = ("num_neurons", "num_epochs", "batch_size", "checkpoint_seconds")
    knobs = [f"--config.{name}={getattr(TINY, name)}" for name in fields]
    defaults = ["--config=tests/tiny.py", *knobs, *more]
    return [sys.executable, "main.py", f"--workdir={workdir}", *defaults]


def started(workdir, *more, env=None):
    return subprocess.Popen(
        command(workdir, *more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
    )


def finish(workdir, *more):
    subprocess.run(command(workdir, *more), check=True, capture_output=True)


LONG = ("--config.num_epochs=2000",)  # long enough to be hit while it trains


def wait_for(path, condition, process):
    deadline = time.monotonic() + 120
    while not condition(path):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def has_lines(number):
    return lambda workdir: any(len(record.read(p)) >= number for p in workdir.glob("*"))


@pytest.fixture(scope="module")
def medium(tmp_path_factory):
    """The folder of an uninterrupted run of 150 epochs, by the command line."""
    workdir = tmp_path_factory.mktemp("medium")
    finish(workdir, "--config.num_epochs=150")
    (path,) = workdir.glob("*")
    return path


@pytest.mark.parametrize("lines", [1, 40, 110])
def test_a_killed_process_started_again_ends_with_the_same_bits(medium, tmp_path, lines):
    process = started(tmp_path, "--config.num_epochs=150")
    wait_for(tmp_path, has_lines(lines), process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (path,) = tmp_path.glob("*")
    assert not folder.is_done(path)
    finish(tmp_path, "--config.num_epochs=150")
    same(path, medium)


DIES_WHILE_WRITING = """
import os, signal, sys
from samscale import cli
real, calls = os.fsync, []
def fsync(descriptor):  # the temporary file is written, the rename has not happened
    name = os.readlink(f"/proc/self/fd/{descriptor}")
    calls.append("checkpoint" in name)
    if sum(calls) == 30:
        os.kill(os.getpid(), signal.SIGKILL)
    real(descriptor)
os.fsync = fsync
sys.exit(cli.train(sys.argv))
"""


@pytest.mark.skipif(not pathlib.Path("/proc/self/fd").exists(), reason="needs /proc")
def test_a_process_killed_inside_a_checkpoint_write_leaves_the_last_one_whole(medium, tmp_path):
    words = command(tmp_path, "--config.num_epochs=150")
    killed = subprocess.run([words[0], "-c", DIES_WHILE_WRITING, *words[2:]], capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    (path,) = tmp_path.glob("*")
    assert (path / f".{checkpoint.NAME}.tmp").exists()
    finish(tmp_path, "--config.num_epochs=150")
    same(path, medium)


@pytest.mark.parametrize("signum, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_finishes_the_step_saves_and_says_how_to_go_on(tmp_path, signum, code):
    process = started(tmp_path, *LONG)
    wait_for(tmp_path, has_lines(3), process)
    process.send_signal(signum)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == code
    assert stderr.count("\n") == 1, stderr
    assert "the same command goes on from there" in stderr
    (path,) = tmp_path.glob("*")
    step = int(stderr.split("stopped at step ")[1].split()[0])
    assert saved(path)["state"]["step"] == step


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path):
    config = Config(
        num_neurons=(8,), batch_size=100, learning_rate=1e20, checkpoint_seconds=0.0, momentum=0.0
    )
    with pytest.raises(errors.Diverged) as caught:
        run.train(config, tmp_path, VIEW())
    path = tmp_path / config.run_id
    assert "not finite at step" in str(caught.value)
    assert "last finite loss" in str(caught.value)
    assert str(path) in str(caught.value)
    assert record.read(path)[-1]["kind"] == "diverged"
    if (path / checkpoint.NAME).exists():
        leaves = jax.tree.leaves(saved(path)["state"]["params"])
        assert all(np.isfinite(leaf).all() for leaf in leaves)


def test_a_full_disk_costs_one_sentence_and_no_checkpoint(whole, tmp_path):
    limited = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000)); "
        "from samscale import cli; sys.exit(cli.train(sys.argv))"
    )
    words = command(tmp_path)
    env = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"}
    process = subprocess.run(
        [words[0], "-c", limited, *words[2:]], capture_output=True, text=True, env=env
    )
    assert process.returncode == 1
    assert process.stderr.count("\n") == 1, process.stderr
    assert "File too large" in process.stderr
    (path,) = tmp_path.glob("*")
    assert not (path / checkpoint.NAME).exists()
    assert not (path / f".{checkpoint.NAME}.tmp").exists()
    finish(tmp_path)
    same(path, whole)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "file"
    files.write_atomically(path, b"old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_damaged_checkpoint_is_named(whole, tmp_path):
    path = tmp_path / TINY.run_id
    path.mkdir()
    (path / checkpoint.NAME).write_bytes(bits(whole)[:100])
    with pytest.raises(OSError, match=f"{checkpoint.NAME}: damaged"):
        run.train(TINY, tmp_path, VIEW())


def test_two_processes_never_train_one_run(tmp_path):
    with (
        folder.opened(TINY, tmp_path),
        pytest.raises(BlockingIOError, match="another process"),
        folder.opened(TINY, tmp_path),
    ):
        pass


def test_beginning_again_moves_what_was_there_aside(whole, tmp_path):
    config = from_mapping({**vars(TINY), "restore_checkpoint": False})
    run.train(config, tmp_path, VIEW())
    path = tmp_path / TINY.run_id
    first = bits(path), rows(path)
    run.train(config, tmp_path, VIEW())
    same(path, whole)
    earlier = path / "earlier-1"
    assert (bits(earlier), rows(earlier)) == first
    assert folder.is_done(earlier)


def test_two_runs_never_share_a_folder_and_none_is_deleted(tmp_path):
    for width in (4, 8):
        config = from_mapping({**vars(TINY), "num_neurons": (width,), "num_epochs": 1})
        run.train(config, tmp_path, VIEW())
    assert len([p for p in tmp_path.iterdir() if folder.is_done(p)]) == 2


def test_streamed_data_give_the_bits_of_resident_data(whole, tmp_path, monkeypatch):
    from samscale.training import feed

    monkeypatch.setattr(feed, "WINDOW_BYTES", 5 * 100 * 70)  # windows of a few batches
    config = from_mapping({**vars(TINY), "cache": False})
    assert config.run_id == TINY.run_id
    run.train(config, tmp_path, VIEW())
    same(tmp_path / TINY.run_id, whole)


def test_num_train_steps_ends_within_an_epoch(tmp_path):
    config = from_mapping({**vars(TINY), "num_train_steps": 17})
    final = run.train(config, tmp_path, VIEW())
    assert final["step"] == 17
    assert final["epoch"] == 2


def test_log_every_steps_writes_means_of_so_many_steps(tmp_path):
    every = from_mapping({**vars(TINY), "num_train_steps": 12, "log_every_steps": 4})
    each = from_mapping({**vars(TINY), "num_train_steps": 12, "log_every_steps": 1})
    run.train(every, tmp_path / "every", VIEW())
    run.train(each, tmp_path / "each", VIEW())
    steps = lambda path: [r for r in rows(path / TINY_12) if r["kind"] == "steps"]
    TINY_12 = every.run_id
    coarse, fine = steps(tmp_path / "every"), steps(tmp_path / "each")
    assert [row["step"] for row in coarse] == [4, 8, 12]
    mean = np.mean([row["train_loss"] for row in fine[:4]])
    np.testing.assert_allclose(coarse[0]["train_loss"], mean, rtol=1e-12)


def test_an_evaluation_sees_every_example_exactly_once_or_so_many_batches(tmp_path):
    from samscale.training import compiled

    machine = compiled.compiled(TINY)
    (stack,) = machine.splits["test"]
    assert stack["weight"].sum() == len(machine.task.test["y"]) == 359
    few = compiled.Compiled(from_mapping({**vars(TINY), "steps_per_eval": 2}))
    (stack,) = few.splits["test"]
    assert stack["weight"].sum() == 200


def test_nothing_compiles_after_the_first_epoch(tmp_path):
    import jax._src.monitoring as monitoring

    compilations, seen = [], []

    def listen(event, duration, **kwargs):
        if event == "/jax/core/compile/backend_compile_duration":
            compilations.append(event)

    class View(VIEW):
        def update(self, step, values):
            if "test_loss" in values:
                seen.append(len(compilations))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        run.train(TINY, tmp_path, View())
    finally:
        monitoring.unregister_event_duration_listener(listen)
    assert len(seen) == 3
    assert seen[0] > 0
    assert seen[-1] == seen[0]
