"""What studies survive: other processes, hangs, kills, signals."""

import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from runs import same
from samscale import cli, errors
from samscale.study import (
    cells,
    execute,
    repeated,
    results,
    workers,
)
from samscale.study import conduct as conductor
from samscale.training import checkpoint, folder, kept, lease, progress, record, run, signals
from tiny_study import BASE, tiny


def test_two_studies_at_once_run_and_note_every_cell_once(tmp_path, file):
    command = [sys.executable, "-c", "import sys; from samscale import cli; sys.exit(cli.main())"]
    command += ["study", file, f"--workdir={tmp_path / 'w'}"]
    both = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(timeout=300) for process in both] == [0, 0]
    place = tmp_path / "w" / "study-tiny_width" / "study.jsonl"
    ids = [json.loads(line)["run_id"] for line in place.read_text().splitlines()]
    assert sorted(set(ids)) == sorted(ids)
    assert len(ids) == 2 * (2 + 2 + 2 * 2)
    for run_id in ids:
        lines = record.read(tmp_path / "w" / run_id)
        assert [line["step"] for line in lines[:-1]] == sorted({x["step"] for x in lines[:-1]})


def test_a_cell_that_another_process_is_running_is_waited_for(tmp_path, monkeypatch, capsys):
    study = tiny(seed=repeated("seed", [0]))
    held = cells(study)[0].config
    with contextlib.ExitStack() as other:
        other.enter_context(folder.opened(held, tmp_path))
        (outcome,) = execute.run_cells([held], tmp_path)
        assert outcome.status == "busy"
        monkeypatch.setattr(conductor.time, "sleep", lambda seconds: other.close())
        conductor.conduct(study, "s", tmp_path, execute.here())
    assert "waiting for cells that another process is running: 1" in capsys.readouterr().out
    assert set(results.cells(study, tmp_path)["status"]) == {"done"}


def test_processes_do_what_this_process_does(tmp_path):
    study = tiny(seed=repeated("seed", [0]))
    conductor.conduct(study, "s", tmp_path / "here", execute.here())
    conductor.conduct(study, "s", tmp_path / "there", workers.processes(2))
    here, there = (results.cells(study, tmp_path / p) for p in ("here", "there"))
    columns = ["run_id", "status", "select", "value"]
    assert here[columns].equals(there[columns])


def test_each_process_has_a_device_of_its_own(tmp_path, monkeypatch):
    """GPUs are counted without starting CUDA, and told apart by what a process may see."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    see = "os.environ['CUDA_VISIBLE_DEVICES']"
    code = f"import os\ndef task(config):\n    raise ValueError('device ' + {see})\n"
    (tmp_path / "sees.py").write_text(code)
    configs = [dataclasses.replace(BASE, task="sees:task", seed=seed) for seed in range(2)]
    outcomes = workers.processes()([[config] for config in configs], tmp_path)
    assert sorted(outcome.reason[-8:] for outcome in outcomes) == ["device 3", "device 5"]


def test_a_cell_whose_process_dies_again_and_again_has_failed(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    code = "import os\ndef task(config):\n    open('deaths', 'a').write('x')\n    os._exit(9)\n"
    (tmp_path / "deadly.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    config = dataclasses.replace(BASE, task="deadly:task")
    good = cells(tiny())[0].config
    outcomes = {o.run_id: o for o in workers.processes(1)([[config, good]], tmp_path)}
    assert outcomes[config.run_id].reason == "its process died 2 times, last with code 9"
    assert (tmp_path / "deaths").read_text() == "xx"
    assert outcomes[good.run_id].status == "done"


HANGING = """
import os, pathlib, signal
import jax
from samscale import tasks
from samscale.config import Config
def task(config):
    base = tasks.build(Config(num_neurons=(4,)))
    def hang():
        if not pathlib.Path("stopped").exists():
            pathlib.Path("stopped").touch()
            os.kill(os.getpid(), signal.SIGSTOP)
    def init(key):
        jax.debug.callback(hang)  # where it runs, not where it is only looked at
        return base.init(key)
    return base._replace(init=init)
"""


def test_a_process_that_hangs_is_replaced_once_its_lease_has_lapsed(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(lease, "SECONDS", 2.0)
    monkeypatch.setenv("SAMSCALE_LEASE_SECONDS", "2")
    (tmp_path / "hanging.py").write_text(HANGING)
    monkeypatch.chdir(tmp_path)
    config = dataclasses.replace(BASE, task="hanging:task")
    (outcome,) = workers.processes(1)([[config]], tmp_path)
    assert outcome.status == "done"
    assert (tmp_path / "stopped").exists()
    assert lease.newest(tmp_path / config.run_id) == 2  # the second owner


DEADLY = """
import os, pathlib
def task(config):
    deaths = pathlib.Path("deaths")
    deaths.write_text(str(int(deaths.read_text()) + 1))
    os._exit(9)
"""
START = """
import pathlib
from samscale.config import Config
from samscale.study import execute
workdir = pathlib.Path("w")
execute.kills = lambda: int(pathlib.Path("deaths").read_text()) if COUNTED else 0
print(list(execute.here()([[CELLS[0]], [CELLS[1]]], workdir)))
"""


@pytest.mark.parametrize("for_memory", [True, False])
def test_a_cell_that_the_system_ends_the_study_at_for_memory_has_failed(
    tmp_path, monkeypatch, for_memory
):
    """In this process, which is killed with it. Any other kill is no fault of the cell's."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "deadly.py").write_text(DEADLY)
    (tmp_path / "deaths").write_text("0")
    good, deadly = cells(tiny())[0].config, dataclasses.replace(BASE, task="deadly:task")
    words = f"from samscale.config import Config; COUNTED, CELLS = {for_memory}, {[good, deadly]!r}"
    command = [sys.executable, "-c", f"{words}\n{START}"]
    go = lambda: subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert [go().returncode for _ in range(execute.ATTEMPTS)] == [9, 9]
    last = go()
    assert execute.known(good, tmp_path / "w").status == "done"
    if not for_memory:
        assert last.returncode == 9
        return
    assert last.returncode == 0
    assert "out of memory: the system ended 2 processes at step 0" in last.stdout
    assert (tmp_path / "deaths").read_text() == "2"
    folder.forgive(tmp_path / "w" / deadly.run_id)
    assert go().returncode == 9  # as often as it takes, but not for ever


def test_a_killed_study_goes_on_loses_nothing_and_ends_with_the_same_bits(tmp_path, file):
    """Compiled as users do; it is killed among replicas, and compared with runs of processes."""
    text = pathlib.Path(file).read_text()
    longer = text.replace("num_epochs=2", "num_epochs=20, checkpoint_seconds=0.0")
    assert longer != text
    pathlib.Path(file).write_text(longer)
    command = [sys.executable, "-c", "import sys; from samscale import cli; sys.exit(cli.main())"]
    command += ["study", file]
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    start = lambda *more: subprocess.Popen(
        [*command, *more], stdout=subprocess.DEVNULL, env=environment
    )
    process = start(f"--workdir={tmp_path / 'w'}")
    while not any((tmp_path / "w").glob("*/checkpoint.msgpack")) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    again = start(f"--workdir={tmp_path / 'w'}", "--replicas=3")
    assert again.wait() == 0
    elsewhere = start(f"--workdir={tmp_path / 'p'}", "--executor=processes", "--workers=1")
    assert elsewhere.wait() == 0
    lines = tmp_path / "w" / "study-tiny_width" / "study.jsonl"
    written = [json.loads(line) for line in lines.read_text().splitlines()]
    assert sorted({row["run_id"] for row in written}) == sorted(row["run_id"] for row in written)
    assert {row["status"] for row in written} == {"done"}
    assert len(written) == 2 * (2 + 2 + 2 * 2)
    for row in written:
        same(tmp_path / "w" / row["run_id"], tmp_path / "p" / row["run_id"])


@pytest.mark.parametrize("executor", ["here", "processes"])
def test_a_study_that_is_asked_to_stop_says_so_and_goes_on(tmp_path, file, executor):
    longer = pathlib.Path(file).read_text().replace("num_epochs=2", "num_epochs=20")
    pathlib.Path(file).write_text(longer)  # else a busy machine may end it before the signal
    command = [sys.executable, "-c", "import sys; from samscale import cli; sys.exit(cli.main())"]
    command += ["study", file, f"--workdir={tmp_path / 'w'}", f"--executor={executor}"]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    lines = tmp_path / "w" / "study-tiny_width" / "study.jsonl"
    while not lines.exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "the same command goes on from there" in error
    assert len(error.splitlines()) == 1
    assert not list(tmp_path.glob("w/*/failed.json"))
    assert cli.main(["samscale", *command[3:]]) == 0
    written = [json.loads(line)["run_id"] for line in lines.read_text().splitlines()]
    assert len(written) == len(set(written)) == 16


def test_a_signal_that_python_drops_stops_the_next_run(tmp_path):
    class Dropping:
        def __del__(self):
            signal.raise_signal(signal.SIGTERM)

    def train():
        with signals.stoppable():
            Dropping()
            run.train(dataclasses.replace(BASE, num_epochs=50), tmp_path, progress.Silent())

    with pytest.raises(errors.Interrupted, match="saved; the same command goes on"):
        train()
    assert run.train(dataclasses.replace(BASE, num_epochs=50), tmp_path)["epoch"] == 50


@pytest.mark.parametrize("listens", [True, False])
def test_a_signal_in_the_last_step_of_a_run_reaches_the_study_and_nobody_else(tmp_path, listens):
    class Late(progress.Silent):
        def update(self, step, values):
            if "test_accuracy" in values and values["epoch"] == BASE.num_epochs:
                os.kill(os.getpid(), signal.SIGTERM)

    if listens:
        with (
            pytest.raises(errors.Interrupted, match="finished cells are kept"),
            signals.stoppable(),
        ):
            run.train(BASE, tmp_path, Late())
    else:
        run.train(BASE, tmp_path, Late())
    assert run.train(BASE, tmp_path)["epoch"] == BASE.num_epochs


def refuses_to_save(monkeypatch, first=lambda: None):
    """Every checkpoint fails, after ``first`` was called; the list of those that were tried."""
    tried = []

    def save(path, tree):
        tried.append(path)
        first()
        raise TypeError("can not serialize 'State' object")

    monkeypatch.setattr(checkpoint, "save", save)
    return tried


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("replicas", [0, 1])
def test_a_signal_that_is_heard_while_a_cell_fails_ends_the_study(
    tmp_path, monkeypatch, signum, replicas
):
    with monkeypatch.context() as patch:
        tried = refuses_to_save(patch, lambda: signal.raise_signal(signum))
        study = pytest.raises(errors.Interrupted, match="finished cells are kept")
        with study as stopped, signals.stoppable():
            conductor.conduct(tiny(), "s", tmp_path, execute.here(replicas))
    assert stopped.value.signum == signum
    assert len(tried) == 1
    assert not list(tmp_path.glob("*/failed.json"))  # it is tried again
    conductor.conduct(tiny(), "s", tmp_path, execute.here(replicas))
    assert set(results.cells(tiny(), tmp_path)["status"]) == {"done"}


def test_a_signal_that_a_task_swallows_ends_the_study_after_its_cell(tmp_path, monkeypatch):
    code = """
import signal
calls = []
def task(config):
    calls.append(config)
    try:
        signal.raise_signal(signal.SIGINT)
    except BaseException:
        raise ValueError("never mind")
"""
    (tmp_path / "deaf_task.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    study = tiny(base=dataclasses.replace(BASE, task="deaf_task:task"))
    with pytest.raises(errors.Interrupted), signals.stoppable():
        conductor.conduct(study, "s", tmp_path / "w", execute.here(1))
    failed = [folder.failure(path) for path in (tmp_path / "w").glob("deaf*")]
    assert failed == ["ValueError: task='deaf_task:task': ValueError: never mind"]


def test_a_worker_that_is_asked_to_stop_while_its_cells_fail_stops(tmp_path, monkeypatch):
    code = """
import os, signal, threading
def task(config):
    os.kill(os.getpid(), signal.SIGTERM)
    open(f"tried-{config.batch_size}", "w").close()
    raise ValueError("never mind")
"""
    (tmp_path / "asked_task.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    sizes = range(1, 4)
    cells = [
        dataclasses.asdict(dataclasses.replace(BASE, task="asked_task:task", batch_size=n))
        for n in sizes
    ]
    process = subprocess.run(
        [sys.executable, "-m", "samscale.study.workers", "w"],
        input=json.dumps({"cells": cells, "replicas": 1}) + "\n",
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert process.returncode == 128 + signal.SIGTERM
    assert len(list(tmp_path.glob("tried-*"))) <= 1


def test_where_the_first_cells_fail_for_one_reason_the_others_are_not_tried(
    tmp_path, monkeypatch, file, capsys
):
    monkeypatch.setattr(kept, "place", lambda: tmp_path / "programs")  # else each start compiles
    command = ["samscale", "study", file, f"--workdir={tmp_path / 'w'}", "--replicas=1"]
    failed = lambda: len(list(tmp_path.glob("w/*/failed.json")))
    with monkeypatch.context() as patch:
        tried = refuses_to_save(patch)
        for _ in range(2):  # the second time without trying them again
            assert cli.main(command) == 1
            error = capsys.readouterr().err
            assert "the first 3 cells have all failed: TypeError: can not serialize" in error
            assert "13 were not tried: mend it and add --retry-failed" in error
            assert len(error.splitlines()) == 1
            assert len(tried) == failed() == conductor.FEW
        assert cli.main([*command, "--keep-going"]) == 1
        assert "every cell has failed" in capsys.readouterr().err
        assert failed() == 16
    assert cli.main([*command, "--retry-failed"]) == 0
    assert failed() == 0


def test_first_cells_that_fail_for_reasons_of_their_own_stop_no_other(tmp_path, monkeypatch):
    def execute_(chunks, workdir):
        for i, config in enumerate(config for chunk in chunks for config in chunk):
            folder.fail(workdir / config.run_id, f"reason {i % 2}")
            yield execute.Outcome(config.run_id, execute.FAILED, f"reason {i % 2}")

    conductor.conduct(tiny(), "s", tmp_path, execute_)
    assert set(results.cells(tiny(), tmp_path)["status"]) == {"failed"}


def test_cells_that_failed_before_do_not_hide_those_that_are_done(tmp_path):
    *others, last = cells(tiny())
    run.train(last.config, tmp_path, progress.Silent())
    for cell in others:
        folder.fail(tmp_path / cell.config.run_id, "as before")
    conductor.conduct(tiny(), "s", tmp_path, execute.here())
    assert set(results.cells(tiny(), tmp_path)["status"]) == {"failed", "done"}


def test_a_study_off_the_main_thread_runs_and_leaves_signals_alone(tmp_path, file):
    text = pathlib.Path(file).read_text()
    small = text.replace('"sgd_2x", ', "").replace("range(2)", "range(1)").replace(", (8,)]", "]")
    pathlib.Path(file).write_text(small)
    codes, before = [], signal.getsignal(signal.SIGINT)
    command = ["samscale", "study", file, f"--workdir={tmp_path / 'w'}"]
    thread = threading.Thread(target=lambda: codes.append(cli.main(command)))
    thread.start()
    thread.join()
    assert codes == [0]
    assert signal.getsignal(signal.SIGINT) is before
