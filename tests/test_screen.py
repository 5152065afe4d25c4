"""What studies and tables of runs leave on a screen."""

import io
import itertools
import re
import sys
from types import SimpleNamespace

import pandas as pd
import pytest

from reports import DESIGN, simulated
from samscale.config import Config
from samscale.study import METHOD, SCIENTIFIC, Axis, Study, cells, repeated, scientific, screen
from samscale.study import plan as planner
from samscale.study.analysis import analyse
from samscale.study.tables import text
from samscale.training import progress
from tiny_study import BASE, tiny


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """What stands on a terminal of 80 columns after a call."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")

    def shown(call, *args):
        stream = Terminal()
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", stream)
            call(*args)
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue())

    return shown


def found(table, question="Does it help?", design=DESIGN):
    study = SimpleNamespace(question=question)
    return SimpleNamespace(design=design, analysis=analyse(table, design), study=study, cells=table)


def test_on_80_columns_nothing_of_the_table_is_cut(terminal):
    table, _ = simulated(widths=(1000, 100_000))
    table["size"] = table["size"].map({"[1000]": "[1200, 400]", "[100000]": "[24000, 8000]"})
    shown = terminal(screen.show, found(table))
    rows = [line for line in shown.splitlines() if line[:1] in "┃│┏└┡"]
    assert all(len(row) <= 80 for row in rows)
    assert "…" not in shown
    joined = "".join(rows)
    words = ["parameters", "sgd %", "method", "gain,", "sgd_2x", "[24000,", "8000]", "5,000,000"]
    assert [word for word in words if word not in joined] == []


def test_a_plan_on_80_columns_is_not_cut(terminal):
    row = planner.Group("looksam [1200, 400]", 120, 60, 12_345_678, 1e7, 1e5, 2**33)
    shown = terminal(screen.show_plan, [row])
    assert "…" not in shown
    for word in ("looksam", "400]", "parameters", "12,345,678", "10,000,000", "8,192.0"):
        assert word in shown


def test_sentences_are_broken_between_words_on_a_terminal_and_not_at_all_elsewhere(
    terminal, monkeypatch
):
    table, _ = simulated(seeds=2)
    table.loc[0, "status"], table["reason"] = "failed", "because " * 30
    shown = terminal(screen.show, found(table))
    sentence = analyse(table, DESIGN).answer
    assert max(map(len, shown.splitlines())) <= 80
    assert sentence.split() == shown[shown.index(sentence[:30]) :].split()[: len(sentence.split())]
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    screen.show(found(table))
    assert sentence in stream.getvalue().splitlines()
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("COLUMNS", "30")
    path = "a/" * 30
    assert progress.wrapped(f"one sentence of some words, {path}\nend").splitlines() == [
        "one sentence of some words,",
        path,
        "end",
    ]


def test_time_left_is_told_once_some_steps_have_been_seen(monkeypatch):
    now = itertools.count(100.0, 20.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    lines = progress.Lines(io.StringIO())
    lines.start("title", 780)
    for step in (1, 2, 780):
        lines.update(step, {"epoch": 1, "train_loss": 2.0})
    _, first, second, last = lines.stream.getvalue().splitlines()
    assert first == "step 1/780  epoch 1  loss 2.0000"
    assert second == "step 2/780  epoch 1  loss 2.0000  4:19:20 left"  # 778 steps of 20 s
    assert last.endswith("  0:00 left")


MARKUP = "[bold]wide[/bold] [/] :smile: "


def test_what_users_write_is_no_markup(terminal):
    table, _ = simulated(seeds=3)
    table["size"] += MARKUP
    table["method"] = table["method"].replace("sam", f"sam {MARKUP}".strip())
    table.loc[0, "status"] = "failed"
    table["reason"] = MARKUP
    shown = " ".join(terminal(screen.show, found(table, question=MARKUP)).split())
    assert shown.startswith(MARKUP.strip())
    assert f"failed: run-0: {MARKUP.strip()}" in shown
    assert f"warning: 1 of {len(table)} runs failed (sgd 1), for instance sgd at " in shown
    assert f"sam {MARKUP}".strip() in shown  # in the answer
    row = planner.Group(MARKUP, 1, 0, 1, 1.0, 1.0, 1.0)
    assert "[bold]" in terminal(screen.show_plan, [row])


def runs(*changes):
    """A row per run as ``load`` gives it, of which the first has not finished."""
    configs = [Config(optimizer="sgd", num_epochs=40, seed=1), Config(optimizer="sgd", seed=1)]
    configs += [Config(optimizer="sgd", num_epochs=80, seed=1, **c) for c in changes]
    last = {"epoch": 40, "num_params": 61_330, "train_loss": 0.25, "test_accuracy": 0.5}
    rows = [{"run_id": c.run_id, **vars(c), "status": "done", **last} for c in configs]
    rows[0] = {k: v for k, v in rows[0].items() if k not in last} | {"status": "unfinished"}
    return pd.DataFrame(rows)


def test_runs_of_one_name_are_told_apart_by_the_knob_that_differs():
    table = runs()
    shown = [line.split() for line in text(table, "screen").splitlines()]
    head, *lines = shown
    assert head[:3] == ["run_id", "status", "num_epochs"]
    assert [line[2] for line in lines] == [str(n) for n in table["num_epochs"]]
    assert "weight_decay" in text(runs({"weight_decay": 0.5}), "screen")


def test_what_names_tell_is_not_told_again():
    table = runs()
    table["run_id"] = [f"run{i}-seed{i}-abc" for i in range(len(table))]
    assert "num_epochs" not in text(table, "screen")


def test_integers_remain_integers_beside_runs_that_have_not_finished():
    shown = text(runs(), "screen")
    assert " 40 " in shown
    assert " 61330 " in shown
    assert "40.0" not in shown
    assert "61330.0" not in shown
    assert "nan" not in shown.lower()


def titles(study):
    groups = itertools.groupby(cells(study), key=lambda cell: cell.config.program_id)
    return [planner._title(study, list(group)) for _, group in groups]


def test_a_row_of_a_plan_is_named_after_all_of_its_cells():
    radii = tiny(size=scientific("rho", [0.01, 0.02, 0.05, 0.1, 0.2]), rho=scientific("b", [1]))
    radii = Study("?", BASE, tuple(axis for axis in radii.axes if axis.name != "b"), x="rho")
    assert titles(radii) == ["sgd 0.01 + 4 more", "sam 0.01 + 4 more"]
    assert titles(tiny()) == ["sgd [4]", "sgd [8]", "sam [4]", "sam [8]"]


def test_a_name_that_labels_share_comes_once():
    values = {f"sam x{x}": {"optimizer": "sam", "rho": 0.1 * x} for x in (0.5, 1, 2)}
    family = Axis(METHOD, SCIENTIFIC, {"sgd": {"optimizer": "sgd"}, **values})
    axes = (scientific("num_neurons", [(4, 5)]), family, repeated("seed", [1]))
    assert titles(Study("?", BASE, axes)) == ["sgd [4, 5]", "sam x0.5, x1, x2 [4, 5]"]


def test_a_row_of_a_plan_counts_runs_once_whatever_their_labels(tmp_path):
    axes = [axis for axis in tiny().axes if axis.name not in ("rho", "num_neurons")]
    study = Study("?", BASE, (scientific("rho", [0.01, 0.1]), *axes), x="rho")
    plain, sam = planner.plan(study, tmp_path)
    assert (plain.title, plain.cells) == ("sgd 0.01, 0.1", 2)
    assert (sam.title, sam.cells) == ("sam 0.01, 0.1", 4)
