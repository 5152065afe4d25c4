"""Run folders -> tables. Reads only; works in mid-study.

A damaged run is one row: its status is failed, and ``damaged`` holds the sentence that says which
file it is. There is no such column where nothing is damaged.
"""

import dataclasses
import itertools
import pathlib
from array import array
from collections import defaultdict
from typing import Any

import numpy as np
import pandas as pd

from samscale.config import Config
from samscale.flatness.meanings import ASIDE
from samscale.study.axes import METHOD, NUISANCE, REPEATED
from samscale.study.grid import Study
from samscale.study.grid import cells as grid_cells
from samscale.training import files, folder, record

DONE, FAILED, UNFINISHED = "done", "failed", "unfinished"
COLUMNS = ("run_id", *(f.name for f in dataclasses.fields(Config)), "width", "status", "reason")


def load(workdir) -> pd.DataFrame:
    """A row for every run in ``workdir``: its knobs, its last metrics, ``status``, ``run_id``.

    ``width`` is the first hidden layer of an MLP or the filters of a ResNet. A folder without runs
    gives an empty table with the columns that every run has. Raises ``ValueError`` where there is
    no such folder.
    """
    root = pathlib.Path(workdir)
    if not root.is_dir():
        raise ValueError(f"workdir={str(workdir)!r}: no such folder")
    rows = [row(path) for path in sorted(root.iterdir()) if folder.is_run(path)]
    return pd.DataFrame(rows, columns=list(dict.fromkeys([*COLUMNS, *itertools.chain(*rows)])))


def row(path: pathlib.Path) -> dict[str, Any]:
    """One run as ``load`` gives it."""
    try:
        config, found = dict(vars(folder.config(path))), outcome(path)
    except OSError as error:
        config, found = {}, _damage(error)
    found = {"run_id": path.name, **config, "width": _width(config), **found}
    return {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()}


def cells(study: Study, workdir) -> pd.DataFrame:
    """A row for every cell of a study, run or not: what ``analysis.analyse`` looks at."""
    axes = study.role(NUISANCE)
    select = study.select or f"validation_{study.metric}"
    value = study.value or f"test_{study.metric}"
    chance = f"chance_{study.metric}" if f"test_{study.metric}" in value else ""  # it is of test
    rows = []
    for cell in grid_cells(study):
        run_id = cell.config.run_id
        path = pathlib.Path(workdir) / run_id
        found = outcome(path)
        rows.append(
            {
                "panel": ", ".join(f"{a.name}={cell.labels[a.name]}" for a in study.panels),
                "size": cell.labels[study.size.name],
                "x": _x(study, cell, found),
                METHOD: cell.labels[METHOD],
                **{a.name: _number(a, cell) for a in axes},
                "seed": _replicate(study, cell),
                "select": found.get(select, np.nan),
                "value": found.get(value, np.nan),
                "chance": found.get(chance, np.nan),
                "status": "missing" if found["status"] == UNFINISHED else found["status"],
                "reason": found["reason"],
                "run_id": run_id,
                "num_params": found.get("num_params", np.nan),
                "seconds": found.get("seconds", np.nan),
                "gradients": found.get("gradients", np.nan),
                "memory": found.get("memory", np.nan),
                "train_loss": found.get("train_loss", np.nan),
                **({"damaged": found["damaged"]} if "damaged" in found else {}),
                **_flatness(path, found),
            }
        )
    return _fill_x(pd.DataFrame(rows))


def curves(table: pd.DataFrame, workdir) -> pd.DataFrame:
    """Every epoch of the runs that ``table`` (with a column ``run_id``) lists.

    Numbers go into arrays run by run: lines as ``dict`` take ten times the memory.
    """
    found = defaultdict(lambda: ([], array("d")))  # by the names of a line: runs, numbers
    for run_id in table["run_id"].unique():
        for line in record.read(pathlib.Path(workdir) / run_id):
            if line.pop("kind") == "epoch":
                runs, numbers = found[tuple(line)]
                runs.append(run_id)
                numbers.extend(line.values())
    tables = [
        pd.DataFrame(np.reshape(numbers, (len(runs), -1)), columns=names).assign(run_id=runs)
        for names, (runs, numbers) in found.items()
    ]
    absent = pd.DataFrame(columns=["run_id", "epoch"])
    return pd.concat(tables or [absent], ignore_index=True).astype({"epoch": int})


def outcome(path) -> dict[str, Any]:
    """``status``, ``reason`` and, where it is done, the last metrics of a run."""
    path = pathlib.Path(path)
    try:
        if path.exists() and not path.is_dir():
            raise files.damaged(path, "it is no folder")
        if folder.is_done(path):
            last = record.last(path)
            last.pop("kind")
            return {"status": DONE, "reason": "", **last}
        reason = folder.failure(path)
    except OSError as error:  # tables of other runs, and of thousands, go on
        return _damage(error)
    return {"status": FAILED if reason else UNFINISHED, "reason": reason or ""}


def damages(table: pd.DataFrame) -> list[str]:
    """What is damaged among the runs of a table, a sentence each."""
    return list(dict.fromkeys(table["damaged"].dropna())) if "damaged" in table else []


def _damage(error):
    return {"status": FAILED, "reason": str(error), "damaged": str(error)}


def _flatness(path, found):
    """What the run measured of itself at its end, or what ``samscale flatness`` measured since.

    ``measured`` says how, for numbers compare only where that is the same.
    """
    if found["status"] != DONE:
        return {}
    try:
        return _measured(path, found)
    except OSError as error:  # the run's other numbers are whole
        return {"damaged": str(error)}


def _measured(path, found):
    prefix, file = "flatness_", pathlib.Path(path) / "flatness.json"
    since = files.read_json(file) if file.exists() else {}
    since = since if since.get("step") == found["step"] else {}  # not of a run in the middle
    names = ("step", "examples", "seed", "rho", "float64")
    about = {name: since.pop(name, None) for name in names}
    later = {prefix + name: value for name, value in since.items()}
    own = {name: value for name, value in found.items() if name.startswith(prefix)}
    n = own.pop(prefix + "examples", None)
    ways = [_way(**{k: about[k] for k in ("examples", "rho")})] if set(later) - set(own) else []
    if own:
        config = folder.config(path)
        ways.append(_way(n or config.flatness_examples, config.flatness_rho))
    numbers = {k: v for k, v in (later | own).items() if not k.endswith(ASIDE)}
    return {**numbers, "measured": "; ".join(dict.fromkeys(ways))} if numbers else {}


def _way(examples, rho):
    return f"{examples} examples, rho {rho}"


def _width(config):
    if config.get("task"):
        return np.nan
    neurons = config.get("num_neurons") or [np.nan]
    return neurons[0] if config.get("model") == "MLP" else config.get("num_filters", np.nan)


def _x(study, cell, found):
    if study.x == "num_params":
        return float(found.get("num_params", np.nan))
    changes = study.size.values[cell.labels[study.size.name]]  # a plain method's rho is settled
    return float(changes.get(study.x, getattr(cell.config, study.x)))


def _replicate(study, cell):
    """What pairs a cell with those of other methods: its seed, where only seeds repeat; else the
    place of its labels among all that repeat."""
    axes = study.role(REPEATED)
    if [axis.name for axis in axes] == ["seed"]:
        return cell.config.seed
    place = 0
    for axis in axes:
        place = place * len(axis.values) + list(axis.values).index(cell.labels[axis.name])
    return place


def _fill_x(table):
    """Cells that have not run yet are as large as those that have."""
    known = table.groupby("size")["x"].transform("first")
    return table.assign(x=table["x"].fillna(known))


def _number(axis, cell):
    """The value of a nuisance axis: its knob where there is one, else the label's place."""
    if axis.name not in cell.labels:
        return np.nan
    label = cell.labels[axis.name]
    changes = axis.values[label]
    value = changes.get(axis.name, list(axis.values).index(label))
    return float(value) if isinstance(value, int | float) else float(list(axis.values).index(label))
