"""Whatever happens to a run, its folder is whole and it ends with the same bits."""

import errno
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from runs import TINY, VIEW, killed_after_saving, same, saved
from samscale.training import checkpoint, files, folder, record, run


@pytest.mark.parametrize("when", range(1, 6))
def test_a_run_stopped_after_any_chunk_ends_like_one_that_was_not(
    whole, tmp_path, monkeypatch, when
):
    with killed_after_saving(when, monkeypatch):
        run.train(TINY, tmp_path, VIEW())
    path = tmp_path / TINY.run_id
    assert not folder.is_done(path)
    run.train(TINY, tmp_path, VIEW())
    same(path, whole)


def test_lines_after_the_checkpoint_are_written_again_and_a_torn_one_is_dropped(
    whole, tmp_path, monkeypatch
):
    def save_or_die(path, tree, save=checkpoint.save):
        if record.read(path):  # a line that no checkpoint knows
            raise KeyboardInterrupt
        save(path, tree)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", save_or_die)
        with pytest.raises(KeyboardInterrupt):
            run.train(TINY, tmp_path, VIEW())
    path = tmp_path / TINY.run_id
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "ep')
    assert len(record.read(path)) == 1
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
    assert len([*path.glob(f".{checkpoint.NAME}.*.tmp")]) == 1
    finish(tmp_path, "--config.num_epochs=150")
    same(path, medium)


@pytest.mark.parametrize("signum, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_programs_compile_is_heard_after_the_first_steps(tmp_path, signum, code):
    # nothing is compiled yet, for no program is kept in that folder
    process = started(tmp_path / "runs", *LONG, env={"JAX_COMPILATION_CACHE_DIR": str(tmp_path)})
    wait_for(tmp_path / "runs", lambda path: any(path.glob("*/.lease-*")), process)
    process.send_signal(signum)
    _, error = process.communicate(timeout=120)
    assert process.returncode == code
    assert "saved; the same command goes on from there" in error
    assert len(error.splitlines()) == 1


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
    assert saved(path)["['state'].step"] == step


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
    assert not [*path.glob(".*.tmp")]
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


def test_writers_of_the_same_file_at_once_do_not_meet(tmp_path, monkeypatch):
    path, inner, real = tmp_path / "file", [b"second"], os.fsync

    def meanwhile(descriptor):  # the first has written, and is about to rename
        if inner:
            files.write_atomically(path, inner.pop())
        real(descriptor)

    monkeypatch.setattr(os, "fsync", meanwhile)
    files.write_atomically(path, b"first")
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_goes_once_it_is_old(tmp_path):
    old, young, other = (tmp_path / f".{n}.tmp" for n in ("file.a", "file.b", "files.c"))
    for left in (old, young, other):
        left.touch()
    for left in (old, other):
        os.utime(left, (1, 1))
    files.write_atomically(tmp_path / "file", b"")
    assert [left.exists() for left in (old, young, other)] == [False, True, True]


def test_a_reader_that_has_seen_enough_stops_no_run(tmp_path):
    process = started(tmp_path)
    process.stdout.close()  # as ``| head`` does
    with process.stderr:
        assert process.wait(120) == 0, process.stderr.read()
    (path,) = tmp_path.glob("*")
    assert folder.is_done(path)
