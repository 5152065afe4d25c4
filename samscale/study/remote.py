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
from samscale.study import results
from samscale.study.execute import BUSY, DONE, FAILED, Outcome, run_cells
from samscale.training import folder, lease

QUEUED, RUNNING, ENDED = "queued", "running", "ended"
ATTEMPTS = 3  # a cell that has lost so many processes has failed
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
    since: float  # when one of its cells was last seen alive, or it was submitted or queued
    started: bool = False


def supervise(engine: Engine, chunks, workdir) -> Iterator[Outcome]:
    """Outcomes as the run folders tell them, until every cell has one.

    A cell that another process, not one of ours, is at is ``busy``.
    """
    workdir = pathlib.Path(workdir)
    waiting: collections.deque = collections.deque()
    for chunk in chunks:
        waiting.extend(chunk[i : i + engine.chunk] for i in range(0, len(chunk), engine.chunk))
    jobs: list[_Job] = []
    lost: collections.Counter = collections.Counter()
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
            if outcome := _outcome(config, workdir):
                yield outcome
            elif lease.is_alive(workdir / config.run_id):
                yield Outcome(config.run_id, BUSY)
            else:
                left.append(config)
        if left:
            chunks.append(left)
    if chunks:
        now = time.monotonic()
        handles = engine.submit(chunks, workdir)
        jobs += [_Job(h, cells, now) for h, cells in zip(handles, chunks, strict=True)]


def _look(engine, waiting, jobs, lost, workdir):
    """What has become of the jobs: outcomes, and chunks to be submitted again."""
    now = time.monotonic()
    for job, state in zip(list(jobs), engine.states([job.handle for job in jobs]), strict=True):
        left = []
        for config in job.cells:
            if outcome := _outcome(config, workdir):
                yield outcome
            else:
                left.append(config)
        job.cells = left
        alive = [c for c in left if lease.is_alive(workdir / c.run_id)]
        if alive or state.name == QUEUED:
            job.since, job.started = now, job.started or bool(alive)
        patience = lease.SECONDS if job.started else START_SECONDS
        ended = state.name == ENDED and not alive
        if left and not ended and now - job.since < patience:
            continue
        jobs.remove(job)
        if left:
            engine.cancel(job.handle)
            died = job.started or ended  # else it never came to its turn: nobody's fault
            yield from _again(left, state.error, died, waiting, lost, workdir)


def _again(cells, error, died, waiting, lost, workdir):
    """The first cell is the one that its process died of; after some deaths it has failed."""
    first, *rest = cells
    lost[first.run_id] += died
    if lost[first.run_id] >= ATTEMPTS:
        reason = f"its process was lost {ATTEMPTS} times" + (f", last: {error}" if error else "")
        folder.fail(workdir / first.run_id, reason)
        yield Outcome(first.run_id, FAILED, reason)
    else:
        waiting.append([first])
    if rest:
        waiting.append(rest)


def _outcome(config, workdir):
    """None where the run folder tells none yet."""
    found = results.outcome(workdir / config.run_id)
    if found["status"] == results.DONE:
        return Outcome(config.run_id, DONE, seconds=found["seconds"])
    if found["status"] == results.FAILED:
        return Outcome(config.run_id, FAILED, found["reason"])
    return None
