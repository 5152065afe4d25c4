"""Whatever an engine does to its jobs, every cell gets one outcome and nothing is lost."""

import json
import os

import pytest

from runs import TINY, rows
from samscale.config import Config
from samscale.study import remote, results
from samscale.study.remote import ENDED, QUEUED, RUNNING, State
from samscale.training import folder, lease, record

CELLS = [Config(num_neurons=(4,), num_epochs=1, batch_size=100, seed=seed) for seed in range(4)]


class Engine:
    """Does to each job what the script says, then works: "works", "dies", "forgets", "vanishes"
    (after a lease was taken), "queues"."""

    chunk = 2

    def __init__(self, *script):
        self.script, self.submitted, self.cancelled, self.closed = list(script), [], [], False

    def slots(self):
        return 1

    def submit(self, chunks, workdir):
        handles = []
        for chunk in chunks:
            fate = self.script.pop(0) if self.script else "works"
            self.submitted.append([config.seed for config in chunk])
            if fate == "works":
                remote.work(json.loads(json.dumps(remote.plain(chunk))), workdir)
            if fate == "vanishes":
                path = workdir / chunk[0].run_id
                path.mkdir(parents=True, exist_ok=True)
                number = lease.newest(path) + 1
                (path / f"{lease.LEASE}{number}").write_text(json.dumps({"machine": "other"}))
            handles.append([fate, 0])
        return handles

    def states(self, jobs):
        for job in jobs:
            job[1] += 1
        names = {"works": ENDED, "dies": ENDED, "forgets": RUNNING, "vanishes": RUNNING}
        late = lambda job: job[0] == "queues" and job[1] > 3  # emptied by hand
        return [
            State(ENDED if late(job) else names.get(job[0], QUEUED), "boom" * (job[0] == "dies"))
            for job in jobs
        ]

    def cancel(self, job):
        self.cancelled.append(job[0])

    def close(self):
        self.closed = True


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(remote, "START_SECONDS", 0.2)
    monkeypatch.setattr(lease, "SECONDS", 0.4)
    monkeypatch.setattr(remote, "POLL_SECONDS", 0.05)


def outcomes(engine, tmp_path, cells=CELLS):
    found = list(remote.supervise(engine, [cells], tmp_path))
    assert len({o.run_id for o in found}) == len(found) == len(cells)  # one each
    assert engine.closed
    return {o.run_id: o for o in found}


@pytest.mark.parametrize("fate", ["works", "dies", "forgets", "vanishes", "queues"])
def test_every_cell_is_done_once_whatever_becomes_of_the_first_job(tmp_path, fate):
    engine = Engine(fate)
    found = outcomes(engine, tmp_path)
    assert {o.status for o in found.values()} == {"done"}
    for config in CELLS:
        kinds = [row["kind"] for row in record.read(tmp_path / config.run_id)]
        assert kinds == ["epoch", "final"]
    assert engine.cancelled == ([] if fate == "works" else [fate])
    again = {"works": [], "forgets": [[0, 1]]}.get(fate, [[0], [1]])  # apart: one may be to blame
    assert sorted(engine.submitted) == sorted([[0, 1], [2, 3], *again])


def test_a_cell_that_its_process_dies_of_has_failed_at_last_and_its_neighbours_have_not(tmp_path):
    class Poison(Engine):
        def submit(self, chunks, workdir):
            self.script = ["dies" if chunk[0].seed == 0 else "works" for chunk in chunks]
            return super().submit(chunks, workdir)

    engine = Poison()
    found = outcomes(engine, tmp_path)
    assert found.pop(CELLS[0].run_id).reason == "its process was lost 3 times, last: boom"
    assert {o.status for o in found.values()} == {"done"}
    assert folder.failure(tmp_path / CELLS[0].run_id)


def test_a_job_that_gave_its_cell_back_and_queues_again_is_left_alone(tmp_path):
    """As a preempted one does; also while the queue's answer is old, and says that it runs."""

    class Preempted(Engine):
        looks = 0

        def submit(self, chunks, workdir):
            with lease.held(folder_of(chunks[0][0], workdir)):
                pass
            return super().submit(chunks, workdir)

        def states(self, jobs):
            self.looks += bool(jobs)
            if self.looks == 6:
                remote.work(remote.plain(CELLS[:1]), tmp_path)
            return [State(RUNNING if self.looks < 3 else QUEUED) for _ in jobs]

    engine = Preempted("forgets")
    outcomes(engine, tmp_path, CELLS[:1])
    assert engine.submitted == [[0]]
    assert engine.cancelled == []


LOST = json.dumps({"machine": "other"})  # of a lease that nobody renews


def leave_lease(config, workdir):
    path = folder_of(config, workdir)
    file = path / f"{lease.LEASE}{lease.newest(path) + 1}"
    file.write_text(LOST)
    os.utime(file, (1, 1))


def test_a_job_whose_node_died_is_left_in_the_queue_that_has_it_again(tmp_path):
    class Requeued(Engine):
        looks = 0

        def states(self, jobs):
            self.looks += bool(jobs)
            if self.looks == 1:
                leave_lease(CELLS[0], tmp_path)
            if self.looks == 4:
                remote.work(remote.plain(CELLS[:1]), tmp_path)
            return [State(QUEUED) for _ in jobs]

    engine = Requeued("queues")
    assert outcomes(engine, tmp_path, CELLS[:1])[CELLS[0].run_id].status == "done"
    assert engine.submitted == [[0]]
    assert engine.cancelled == []


def test_the_lease_that_an_earlier_job_lost_is_not_held_against_the_next(tmp_path, monkeypatch):
    class Starting(Engine):
        looks = 0

        def states(self, jobs):
            self.looks += bool(jobs)
            if self.looks == 4:
                remote.work(remote.plain(CELLS[:1]), tmp_path)
            return [State(RUNNING) for _ in jobs]

    monkeypatch.setattr(remote, "START_SECONDS", 60.0)
    leave_lease(CELLS[0], tmp_path)
    engine = Starting("forgets")
    outcomes(engine, tmp_path, CELLS[:1])
    assert engine.submitted == [[0]]
    assert engine.cancelled == []


def test_a_cell_that_ends_between_two_looks_at_it_is_not_taken_for_lost(tmp_path, monkeypatch):
    looks = []

    def late(config, workdir, tell=remote.known):
        looks.append(config)
        return None if len(looks) == 2 else tell(config, workdir)  # 1: before it is submitted

    class Killed(Engine):
        def submit(self, chunks, workdir):
            handles = super().submit(chunks, workdir)
            leave_lease(CELLS[0], workdir)
            return handles

        def states(self, jobs):
            return [State(RUNNING) for _ in jobs]

    monkeypatch.setattr(remote, "known", late)
    engine = Killed("works")
    outcomes(engine, tmp_path, CELLS[:1])
    assert engine.cancelled == []


def folder_of(config, workdir):
    path = workdir / config.run_id
    path.mkdir(parents=True, exist_ok=True)
    return path


def test_a_cell_that_gets_on_between_deaths_may_die_often(tmp_path, monkeypatch):
    steps = iter(range(100))
    monkeypatch.setattr(remote.checkpoint, "step", lambda path: next(steps))
    engine = Engine(*["dies"] * 5)
    assert {o.status for o in outcomes(engine, tmp_path, CELLS[:1]).values()} == {"done"}
    assert len(engine.submitted) == 6


def test_a_job_may_take_its_time_between_two_cells(tmp_path, monkeypatch):
    """The first is done; the second compiles for longer than a lease lasts, but not for ever."""

    class Slow(Engine):
        def states(self, jobs):
            if jobs and not lease.newest(tmp_path / CELLS[1].run_id) and self.looks(3):
                remote.work(remote.plain(CELLS[1:2]), tmp_path)
            return [State(RUNNING) for _ in jobs]

        def looks(self, enough):
            self.seen = getattr(self, "seen", 0) + 1
            return self.seen > enough

    monkeypatch.setattr(lease, "SECONDS", 0.0)
    monkeypatch.setattr(remote, "START_SECONDS", 5.0)
    engine = Slow("forgets")
    remote.work(remote.plain(CELLS[:1]), tmp_path)
    assert {o.status for o in outcomes(engine, tmp_path, CELLS[:2]).values()} == {"done"}
    assert engine.submitted == [[1]]
    assert engine.cancelled == []


def test_a_cell_that_never_had_its_turn_waits_for_it_for_ever(tmp_path):
    engine = Engine(*["forgets"] * 5)
    assert {o.status for o in outcomes(engine, tmp_path, CELLS[:1]).values()} == {"done"}
    assert len(engine.submitted) == 6


def test_a_job_in_the_queue_is_left_there(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "START_SECONDS", 0.0)
    engine = Engine("queues")
    engine.states = lambda jobs, ask=engine.states: ask(jobs) if engine.submitted else []
    outcomes(engine, tmp_path, CELLS[:1])
    assert engine.cancelled == ["queues"]  # only after it had left the queue
    assert len(engine.submitted) == 2


def test_what_is_done_or_failed_before_is_not_submitted(tmp_path):
    remote.work(remote.plain(CELLS[:1]), tmp_path)
    folder.fail(tmp_path / CELLS[1].run_id, "too large")
    engine = Engine()
    found = outcomes(engine, tmp_path)
    assert found[CELLS[1].run_id].reason == "too large"
    assert engine.submitted == [[2, 3]]


def test_what_lives_elsewhere_is_busy_and_not_submitted(tmp_path):
    path = tmp_path / CELLS[0].run_id
    path.mkdir()
    (path / f"{lease.LEASE}1").write_text(json.dumps({"machine": "other"}))
    os.utime(path, (0, 0))
    engine = Engine()
    assert outcomes(engine, tmp_path)[CELLS[0].run_id].status == "busy"
    assert engine.submitted == [[1], [2, 3]]


def test_a_study_that_stops_cancels_its_jobs(tmp_path):
    engine = Engine("queues")
    running = remote.supervise(engine, [[*CELLS]], tmp_path)
    running.close()
    assert not engine.submitted  # it had not begun
    running = remote.supervise(engine, [CELLS[2:], CELLS[:2]], tmp_path)
    engine.script = ["works", "queues"]
    next(running)
    next(running)
    engine.slots = lambda: 2
    running.close()
    assert engine.closed


def test_a_cell_run_by_an_engine_is_the_cell_run_alone(tmp_path):
    from samscale.training import progress, run

    run.train(TINY, tmp_path / "alone", progress.Silent())
    outcomes(Engine(), tmp_path / "w", [TINY])
    assert rows(tmp_path / "w" / TINY.run_id) == rows(tmp_path / "alone" / TINY.run_id)
    assert results.outcome(tmp_path / "w" / TINY.run_id)["status"] == "done"
