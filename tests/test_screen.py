"""What studies and tables of runs leave on a screen."""

import io
import re
import sys
from types import SimpleNamespace

import pandas as pd
import pytest

from reports import DESIGN, simulated
from samscale.config import Config
from samscale.study import plan as planner
from samscale.study import screen
from samscale.study.analysis import analyse
from samscale.study.tables import text


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
