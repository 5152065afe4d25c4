"""How far studies are, seen from another process."""

import pathlib

from samscale.errors import Damaged
from samscale.study import results, store
from samscale.study.grid import cells
from samscale.training import lease, record


def lines(workdir):
    """A line for each study, and one for each cell that is running or has failed.

    Raises ``ValueError`` where there is no study and, after the lines of all others, ``Damaged``
    for studies that cannot be read.
    """
    names = store.names(workdir)
    if not names:
        raise ValueError(f"workdir={str(workdir)!r}: holds no study")
    damaged = []
    for name in names:
        try:
            study, _ = store.load(workdir, name)
        except Damaged as error:
            damaged.append(str(error))
        else:
            yield from _of_study(name, study, workdir)
    if damaged:
        raise Damaged("\n".join(damaged))


def _of_study(name, study, workdir):
    counts = dict.fromkeys(("done", "failed", "running", "left"), 0)
    details = []
    for run_id in dict.fromkeys(cell.config.run_id for cell in cells(study)):
        path = pathlib.Path(workdir) / run_id
        found = results.outcome(path)
        kind = found["status"]
        if kind == results.UNFINISHED:
            kind = "running" if lease.state(path) == lease.ALIVE else "left"
        counts[kind] += 1
        if kind == "failed":
            details.append(f"  failed   {path.name}: {found['reason']}")
        if kind == "running":
            details.append(f"  running  {path.name}{_epoch(path)}")
    yield f"{name}: " + ", ".join(f"{n} {kind}" for kind, n in counts.items() if n)
    yield from details


def _epoch(path):
    try:
        rows = [row for row in record.read(path) if row["kind"] == "epoch"]
    except OSError as error:
        return f": {error}"
    return f", epoch {rows[-1]['epoch']}" if rows else ""
