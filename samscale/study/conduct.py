"""From a study to its finished cells: what is missing is run, what exists is kept."""

import itertools
import json
import pathlib
import time

from samscale.study import results, store, view
from samscale.study.execute import BUSY, DONE, FAILED, Executor, Outcome
from samscale.study.grid import Cell, Study, cells
from samscale.training import folder

POLL_SECONDS = 1.0  # between looks at cells that another process is running


def conduct(study: Study, name: str, workdir, execute: Executor, command=(), retry_failed=False):
    """Run every cell of a study that is not done; returns the study's folder.

    Finished cells are kept, unfinished ones go on from their checkpoints, a failed one is noted
    with its reason and stops no other. Raises ``ValueError`` (the study), ``OSError`` (disk),
    ``Interrupted`` (a signal; what ran is saved).
    """
    study.validate()
    path = store.save(workdir, name, study, list(command))
    by_id = {cell.config.run_id: cell for cell in cells(study)}
    if retry_failed:
        for run_id in by_id:
            folder.forgive(pathlib.Path(workdir) / run_id)
    noted = _noted(path)
    shown = view.choose(study, len(by_id))
    left = dict(by_id)
    try:
        while left:
            for outcome in execute(_chunks(left.values()), pathlib.Path(workdir)):
                if outcome.status == BUSY:
                    continue
                cell = left.pop(outcome.run_id)
                line = _line(study, cell, outcome, workdir)
                if noted.get(outcome.run_id) != outcome.status:
                    store.note(path, line)
                shown.update(line)
            if left:
                shown.say(f"waiting for cells that another process is running: {len(left)}")
                time.sleep(POLL_SECONDS)
    finally:
        shown.stop()
    return path


def _chunks(cells):
    """Cells that share a program, one after another."""
    groups = itertools.groupby((cell.config for cell in cells), lambda config: config.program_id)
    return [list(group) for _, group in groups]


def _line(study: Study, cell: Cell, outcome: Outcome, workdir):
    found = results.outcome(pathlib.Path(workdir) / outcome.run_id)
    value = study.value or f"test_{study.metric}"
    numbers = {value: found[value]} if outcome.status == DONE and value in found else {}
    reason = {"reason": outcome.reason} if outcome.status == FAILED else {}
    seconds = {"seconds": found["seconds"]} if outcome.status == DONE else {}
    return {
        "run_id": outcome.run_id,
        "status": outcome.status,
        **cell.labels,
        **numbers,
        **seconds,
        **reason,
    }


def _noted(path):
    """run_id -> the status that an earlier process wrote down last."""
    file = path / "study.jsonl"
    if not file.exists():
        return {}
    *lines, torn = file.read_text().split("\n")
    if torn:
        with file.open("a") as end:  # of a process killed within a line
            end.write("\n")
    found = {}
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        found[row["run_id"]] = row["status"]
    return found
