"""Cells on other machines: handed to an engine, and handed over again when they are lost.

An engine (Ray, Slurm) starts processes and may forget them: a node is cut off, a job is requeued,
a queue is emptied by hand. So nothing it says about success is believed. The run folders, in a work
folder that all machines share, say what is done; their leases say what is alive; whatever is
neither, and not waiting in a queue, is submitted again.
"""

import collections
import dataclasses
import os
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from samscale.config import Config, from_mapping
from samscale.study.execute import BUSY, FAILED, Outcome, known, run_cells
from samscale.training import checkpoint, folder, lease

QUEUED, RUNNING, ENDED = "queued", "running", "ended"
ATTEMPTS = 3  # a cell that has lost so many processes at one step has failed
START_SECONDS = float(os.environ.get("SAMSCALE_START_SECONDS", 600))  # until a first lease
POLL_SECONDS = 0.2


class State(NamedTuple):
    """Of a job, as far as the engine knows. ``error``: of one that ended badly."""

    name: str
    error: str = ""


class Engine(Protocol):
    """What starts processes elsewhere. A job works off a few cells of one program."""

    chunk: int  # cells a job

    def slots(self) -> int:
        """Jobs to have under way or queued now."""

    def submit(self, chunks: Sequence[list[Config]], workdir: pathlib.Path) -> list[Any]:
        """A handle for each chunk; its process calls ``work``."""

    def states(self, jobs: Sequence[Any]) -> list[State]: ...

    def cancel(self, job: Any) -> None: ...

    def close(self) -> None: ...


def work(configs: Sequence[dict], workdir: str) -> None:
    """A job, on whatever machine: cells that are done, or alive elsewhere, are passed over."""
    for _ in run_cells([from_mapping(config) for config in configs], workdir):
        pass


def plain(configs: Sequence[Config]) -> list[dict]:
    """Configs as an engine may send them: no class of ours need be known to unpack them."""
    return [dataclasses.asdict(config) for config in configs]


@dataclasses.dataclass
class _Job:
    handle: Any
    cells: list[Config]
    before: dict[str, int]  # the newest lease of each cell when it was submitted
    since: float  # when one of its cells was last seen alive, or it was submitted or queued


def supervise(engine: Engine, chunks, workdir) -> Iterator[Outcome]:
    """Outcomes as the run folders tell them, until every cell has one.

    A cell that another process, not one of ours, is at is ``busy``.
    """
    workdir = pathlib.Path(workdir)
    waiting: collections.deque = collections.deque()
    for chunk in chunks:
        waiting.extend(chunk[i : i + engine.chunk] for i in range(0, len(chunk), engine.chunk))
    jobs: list[_Job] = []
    lost: dict[str, tuple[int, int]] = {}  # run_id -> the step it stood at, deaths there
    try:
        while waiting or jobs:
            yield from _submit(engine, waiting, jobs, workdir)
            yield from _look(engine, waiting, jobs, lost, workdir)
            time.sleep(POLL_SECONDS)
    finally:
        for job in jobs:
            engine.cancel(job.handle)
        engine.close()


def _submit(engine, waiting, jobs, workdir):
    """Fills the slots; says what is done, failed or somebody else's without asking the engine."""
    chunks = []
    free = max(engine.slots() - len(jobs), 0)
    while waiting and len(chunks) < free:
        left = []
        for config in waiting.popleft():
            if outcome := known(config, workdir):
                yield outcome
            elif lease.state(workdir / config.run_id) == lease.ALIVE:
                yield Outcome(config.run_id, BUSY)
            else:
                left.append(config)
        if left:
            chunks.append(left)
    if chunks:
        before = {c.run_id: lease.newest(workdir / c.run_id) for chunk in chunks for c in chunk}
        now = time.monotonic()
        handles = engine.submit(chunks, workdir)
        jobs += [_Job(h, cells, before, now) for h, cells in zip(handles, chunks, strict=True)]


def _look(engine, waiting, jobs, lost, workdir):
    """What has become of the jobs: outcomes, and chunks to be submitted again."""
    now = time.monotonic()
    for job, state in zip(list(jobs), engine.states([job.handle for job in jobs]), strict=True):
        left = []
        for config in job.cells:
            if outcome := known(config, workdir):
                yield outcome
            else:
                left.append(config)
        job.cells = left
        found = {c.run_id: lease.state(workdir / c.run_id) for c in left}
        alive = lease.ALIVE in found.values()
        dead = [c for c in left if found[c.run_id] == lease.LOST and _is_of(job, c, workdir)]
        if any(known(c, workdir) for c in dead):
            continue  # it has ended this moment: the next look tells
        if alive or state.name == QUEUED:
            job.since, dead = now, []
        ended = state.name == ENDED and not alive
        if left and not ended and not dead and now - job.since < START_SECONDS:
            continue
        jobs.remove(job)
        if left:
            engine.cancel(job.handle)
            # Else it never came to its turn: nobody's fault.
            died = (dead or left)[0] if dead or ended else None
            yield from _again(left, died, state.error, waiting, lost, workdir)


def _is_of(job, config, workdir):
    """Whether the cell's lease was taken since the job was submitted, so not by an earlier one."""
    return lease.newest(workdir / config.run_id) > job.before[config.run_id]


def _again(cells, died, error, waiting, lost, workdir):
    """Hands cells in again; one that its processes die of, without any progress, has failed."""
    others = [config for config in cells if config is not died]
    if others:
        waiting.appendleft(others)
    if died is None:
        return
    path = workdir / died.run_id
    at, deaths = lost.get(died.run_id, (0, 0))
    step = checkpoint.step(path)
    lost[died.run_id] = step, 1 + (deaths if step == at else 0)
    if lost[died.run_id][1] < ATTEMPTS:
        waiting.appendleft([died])
        return
    reason = f"its process was lost {ATTEMPTS} times" + (f", last: {error}" if error else "")
    folder.fail(path, reason)
    yield Outcome(died.run_id, FAILED, reason)
