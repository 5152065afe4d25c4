"""A study: its cells, what survives, what two studies share, and what a person reads."""

import contextlib
import dataclasses
import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from samscale import cli, errors
from samscale.cli import words
from samscale.study import (
    cells,
    execute,
    grid,
    nuisance,
    publish,
    repeated,
    results,
    scientific,
    store,
    workers,
)
from samscale.study import conduct as conductor
from samscale.study.analysis import Design, analyse
from samscale.training import folder, lease, progress, record, run
from tiny_study import BASE, tiny

DIGITS = pathlib.Path("studies/digits_width.py").resolve()
FILE = """
from samscale.cli import words
from samscale.config import Config
from samscale.study import Study, methods, nuisance, repeated, scientific

BASE = Config(num_epochs=2, batch_size=100)

def get_study():
    return Study(
        question="Is <b>wider</b> better?",
        base=BASE,
        axes=(
            scientific("num_neurons", [(4,), (8,)]),
            methods(BASE, "sgd", "sgd_2x", "sam"),
            nuisance("rho", [0.05, 0.1], only=["sam"]),
            repeated("seed", range(2)),
        ),
    )
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "tiny_width.py"
    path.write_text(FILE)
    return str(path)


def test_a_study_is_read_back_as_it_was_written(tmp_path):
    store.save(tmp_path, "s", tiny(), ["samscale"])
    again, _ = store.load(tmp_path, "s")
    assert [c.config.run_id for c in cells(again)] == [c.config.run_id for c in cells(tiny())]
    assert grid.METHOD in [axis.name for axis in again.axes]


def test_a_cell_of_a_study_is_the_run_alone(tmp_path):
    conductor.conduct(tiny(), "s", tmp_path / "study", execute.here(replicas=1))
    config = cells(tiny())[-1].config
    run.train(config, tmp_path / "alone")
    read = lambda place: [
        {k: v for k, v in row.items() if k not in run.TIMED}
        for row in record.read(tmp_path / place / config.run_id)
    ]
    assert read("study") == read("alone")


def test_what_is_done_is_kept_and_shared_between_studies(tmp_path, monkeypatch):
    conductor.conduct(tiny(), "first", tmp_path, execute.here())
    trained = []
    train = run.train_together
    monkeypatch.setattr(run, "train_together", lambda c, *a: trained.extend(c) or train(c, *a))
    wider = tiny(size=scientific("num_neurons", [(4,), (8,), (12,)]))
    conductor.conduct(wider, "second", tmp_path, execute.here())
    assert {c.num_neurons for c in trained} == {(12,)}
    lines = (tmp_path / "study-second" / "study.jsonl").read_text().splitlines()
    assert len(lines) == len(cells(wider))


def test_a_failed_cell_is_noted_and_stops_no_other(tmp_path):
    study = dataclasses.replace(
        tiny(),
        base=dataclasses.replace(BASE, loss="squared"),
        axes=tiny(rate=nuisance("learning_rate", [0.1, 1e9], only=["sgd"])).axes,
    )
    conductor.conduct(study, "s", tmp_path, execute.here())
    table = results.cells(study, tmp_path)
    failed = table[table["status"] == "failed"]
    assert (failed["learning_rate"] == 1e9).all()
    assert len(failed) == 4
    assert failed["reason"].str.contains("not finite at step").all()
    assert (table["status"] == "done").sum() == len(table) - 4


def test_labels_of_one_config_are_cells_of_one_run(tmp_path):
    same = {"dense": {}, "not pruned": {"pruner": "none"}}
    study = tiny(pruned=scientific("pruned", same), seed=repeated("seed", [0]))
    conductor.conduct(study, "s", tmp_path, execute.here())
    table = results.cells(study, tmp_path)
    assert len(table) == 2 * len(cells(tiny(seed=repeated("seed", [0]))))
    assert set(table["panel"]) == {"pruned=dense", "pruned=not pruned"}
    assert table["run_id"].nunique() == len(table) / 2
    assert set(table["status"]) == {"done"}
    lines = (tmp_path / "study-s" / "study.jsonl").read_text().splitlines()
    assert len(lines) == len(table) / 2


def test_the_table_of_cells_is_the_last_line_of_each_record(tmp_path):
    study = tiny(seed=repeated("seed", [0]))
    conductor.conduct(study, "s", tmp_path, execute.here())
    for row in results.cells(study, tmp_path).itertuples():
        final = record.read(tmp_path / row.run_id)[-1]
        assert final["validation_accuracy"] != final["test_accuracy"]
        assert (row.select, row.value) == (final["validation_accuracy"], final["test_accuracy"])
        assert row.gradients == final["step"] * (2 if row.method == "sam" else 1)
        assert (row.num_params, row.x) == (final["num_params"], final["num_params"])


@pytest.mark.parametrize(
    "axes",
    [
        {"seed": repeated("split_seed", range(3))},
        {"seed": repeated("seed", range(2)), "split_seed": repeated("split_seed", range(3))},
    ],
    ids=["not seeds", "two axes"],
)
def test_pairs_are_of_the_same_replicate_whatever_repeats(tmp_path, axes):
    study = tiny(**axes)
    table = results.cells(study, tmp_path)
    number = math.prod(len(axis.values) for axis in axes.values())
    by = ["size", "method", *(a.name for a in study.role(grid.NUISANCE))]
    assert (table.groupby(by, dropna=False)["seed"].nunique() == number).all()
    assert not table.duplicated([*by, "seed"]).any()
    done = table.assign(status="done", value=0.9, select=0.9, x=1.0, reason="")
    gains = analyse(done, Design(("rho",))).gains
    assert set(gains["n"]) == {number}


@pytest.mark.parametrize(
    "wrong, words",
    [
        ({"metric": "acuracy"}, "metric='acuracy': must be 'accuracy' or 'loss'"),
        ({"value": "test_acuracy"}, "value='test_acuracy': must be one of train_accuracy, "),
        ({"select": "validation_los"}, "select='validation_los': must be one of "),
        ({"x": "num_neurons"}, "x='num_neurons': must be 'num_params', or a knob that is one"),
        ({"x": "widht"}, "x='widht': must be 'num_params', or a knob that is one number"),
    ],
)
def test_a_number_that_no_run_has_is_refused_before_anything_runs(tmp_path, wrong, words, capsys):
    changes = ", ".join(f"{k}={v!r}" for k, v in wrong.items())
    path = tmp_path / "wrong.py"
    path.write_text(FILE.replace("base=BASE,", f"base=BASE, {changes},", 1))
    assert cli.main(["samscale", "study", str(path), f"--workdir={tmp_path / 'w'}"]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "w").exists()


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
from samscale import tasks
from samscale.config import Config
def task(config):
    base = tasks.build(Config(num_neurons=(4,)))
    def init(key):
        if not pathlib.Path("stopped").exists():
            pathlib.Path("stopped").touch()
            os.kill(os.getpid(), signal.SIGSTOP)
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


def test_every_start_of_a_study_is_remembered(tmp_path, monkeypatch):
    study = tiny()
    one, two = ["samscale", "study", "a b.py"], ["samscale", "study", "c.py", "--seeds=3"]
    for command in (one, two, one):
        store.save(tmp_path, "s", study, command)
    monkeypatch.setattr(folder, "versions", lambda: {"jax": "another"})
    store.save(tmp_path, "s", study, one)
    info = publish.find(tmp_path, "s").info
    assert info["commands"] == ["samscale study 'a b.py'", "samscale study c.py --seeds=3"]
    file = store.place(tmp_path, "s") / "study.json"
    saved = json.loads(file.read_bytes())
    saved |= saved.pop("starts")[0]  # as an earlier version wrote it
    file.write_text(json.dumps(saved))
    store.save(tmp_path, "s", study, two)
    assert [start["command"] for start in store.load(tmp_path, "s")[1]] == [one, two]
    assert info["environment"]["jax"].endswith("; another")


def test_a_killed_study_goes_on_and_loses_nothing(tmp_path, file):
    command = [sys.executable, "-c", "import sys; from samscale import cli; sys.exit(cli.main())"]
    command += ["study", file, f"--workdir={tmp_path / 'w'}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=dict(os.environ))
    lines = tmp_path / "w" / "study-tiny_width" / "study.jsonl"
    while not lines.exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert cli.main(["samscale", *command[3:]]) == 0
    written = [json.loads(line) for line in lines.read_text().splitlines()]
    assert sorted({row["run_id"] for row in written}) == sorted(row["run_id"] for row in written)
    assert {row["status"] for row in written} == {"done"}
    assert len(written) == 2 * (2 + 2 + 2 * 2)


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
        with words.stoppable():
            Dropping()
            run.train(dataclasses.replace(BASE, num_epochs=50), tmp_path, progress.Silent())

    with pytest.raises(errors.Interrupted, match="saved; the same command goes on"):
        train()
    assert run.train(dataclasses.replace(BASE, num_epochs=50), tmp_path)["epoch"] == 50


def test_absent_data_are_one_sentence_and_nothing_is_written(tmp_path, monkeypatch, capsys):
    def absent(config):
        raise FileNotFoundError(2, "No such file", "mnist")

    monkeypatch.setattr(run, "ready", absent)
    assert cli.main(["samscale", "study", str(DIGITS), f"--workdir={tmp_path / 'w'}"]) == 1
    assert capsys.readouterr().err == "error: mnist: No such file\n"
    assert not (tmp_path / "w").exists()


def test_the_commands_answer(tmp_path, file, capsys):
    where = str(tmp_path / "w")
    assert cli.main(["samscale", "study", file, f"--workdir={where}", "--dry-run"]) == 0
    assert "16 cells" in " ".join(capsys.readouterr().out.split())
    assert not (tmp_path / "w").exists()
    assert cli.main(["samscale", "study", file, f"--workdir={where}"]) == 0
    page = (tmp_path / "w" / "study-tiny_width" / "report.html").read_text()
    assert "Is &lt;b&gt;wider&lt;/b&gt; better?" in page
    assert cli.main(["samscale", "status", where]) == 0
    assert "tiny_width: 16 done" in capsys.readouterr().out
    assert (
        cli.main(["samscale", "results", where, "--csv", "--where=width > 4 and rho == 0.1"]) == 0
    )
    assert len(capsys.readouterr().out.splitlines()) == 1 + 2
    assert cli.main(["samscale", "results", where, f"--parquet={tmp_path / 'all.parquet'}"]) == 0
    assert cli.main(["samscale", "report", where]) == 0
    out = tmp_path / "gain.svg"
    assert cli.main(["samscale", "figure", where, "--format=svg", f"--out={out}"]) == 0
    assert out.read_text().startswith("<svg")


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["study", "nowhere.py", "--workdir=w"], "study='nowhere.py': no such file"),
        (["status", "."], "holds no study"),
        (["study", str(DIGITS), "--workdir=w", "--executor=rey"], "executor='rey': choose one of"),
        (["study", str(DIGITS), "--workdir=w", "--workers=2"], "workers=2: must be 0 for executor"),
        (["study", str(DIGITS), "--workdir=w", "--workers=-1"], "workers=-1: must be 0 or more"),
        (["study", str(DIGITS), "--workdir=w", "--option=x"], "option='x': must be NAME=VALUE"),
        (["study", str(DIGITS), "--workdir=w", "--option=x=1"], "option='x': executor='here' has"),
        (["report", ".", "--study=x"], "study='x': choose one of those"),
        (["results", "nowhere"], "workdir='nowhere': no such folder"),
    ],
)
def test_wrong_words_are_one_sentence(tmp_path, monkeypatch, capsys, words, sentence):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["samscale", *words]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert len(error.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("listens", [True, False])
def test_a_signal_in_the_last_step_of_a_run_reaches_the_study_and_nobody_else(tmp_path, listens):
    class Late(progress.Silent):
        def update(self, step, values):
            if "test_accuracy" in values and values["epoch"] == BASE.num_epochs:
                os.kill(os.getpid(), signal.SIGTERM)

    if listens:
        with pytest.raises(errors.Interrupted, match="finished cells are kept"), words.stoppable():
            run.train(BASE, tmp_path, Late())
    else:
        run.train(BASE, tmp_path, Late())
    assert run.train(BASE, tmp_path)["epoch"] == BASE.num_epochs
