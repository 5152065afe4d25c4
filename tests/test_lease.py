"""A run folder has one owner: on one machine at once, on several within a lease."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import threading
import time

import pytest

from runs import TINY, rows
from samscale.study import execute
from samscale.training import files, lease, progress, record, run

HOLD = """
import os, pathlib, sys
from samscale.training import lease
holding = lease.held(pathlib.Path(sys.argv[1]))
holding.__enter__()
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def elsewhere(monkeypatch):
    """Makes this process a machine of a given name, which sees no other machine's processes."""
    return lambda name: monkeypatch.setattr(lease, "_machine", lambda: name)


def age(path, seconds):
    """Lets the newest lease look as if it had been renewed so long ago."""
    file = path / f"{lease.LEASE}{lease.newest(path)}"
    then = file.stat().st_mtime - seconds
    os.utime(file, (then, then))


def test_a_second_process_of_the_machine_is_refused_and_a_dead_one_is_replaced_at_once(tmp_path):
    with lease.held(tmp_path) as first:
        assert lease.state(tmp_path) == lease.ALIVE
        with pytest.raises(BlockingIOError, match="another process is training this run"):
            lease.held(tmp_path).__enter__()
        first.check()
    assert lease.state(tmp_path) == lease.FREE
    dead = subprocess.run([sys.executable, "-c", HOLD, str(tmp_path)], check=False)
    assert dead.returncode == -9
    assert lease.newest(tmp_path) == 2  # renewed this moment, and not given back
    with lease.held(tmp_path) as third:
        assert third.number == 3


def test_another_machine_waits_for_the_lease_to_lapse(tmp_path, elsewhere):
    elsewhere("a")
    holding = lease.held(tmp_path)
    first = holding.__enter__()
    elsewhere("b")
    assert lease.state(tmp_path) == lease.ALIVE
    with pytest.raises(BlockingIOError):
        lease.held(tmp_path).__enter__()
    age(tmp_path, lease.SECONDS + 1)
    assert lease.state(tmp_path) == lease.LOST
    with lease.held(tmp_path) as second:
        second.check()
        with pytest.raises(BlockingIOError, match="taken this run over"):
            first.check()
    holding.__exit__(None, None, None)


def test_a_lease_that_was_given_back_is_free_at_once_for_every_machine(tmp_path, elsewhere):
    elsewhere("a")
    with lease.held(tmp_path):
        pass
    elsewhere("b")
    with lease.held(tmp_path):
        pass


def test_a_later_process_of_the_same_number_is_not_the_owner(tmp_path):
    with lease.held(tmp_path):
        file = tmp_path / f"{lease.LEASE}1"
        owner = json.loads(files.verified_line(file.read_bytes())[0])
        assert owner["started"]
        file.write_bytes(files.checked_line({**owner, "started": "1"})[0])
        assert lease.state(tmp_path) == lease.LOST


def test_an_owner_that_sleeps_on_this_machine_loses_its_lease_too(tmp_path):
    with lease.held(tmp_path) as sleeping:
        age(tmp_path, lease.SECONDS + 1)
        with lease.held(tmp_path) as second:
            second.check()
            assert lease.state(tmp_path) == lease.ALIVE
            with pytest.raises(BlockingIOError):
                lease.held(tmp_path).__enter__()
            with pytest.raises(BlockingIOError):
                sleeping.check()


def test_of_many_that_want_a_lapsed_lease_one_has_it(tmp_path, elsewhere):
    elsewhere("a")
    with lease.held(tmp_path):
        age(tmp_path, lease.SECONDS + 1)
        elsewhere("b")
        start, won = threading.Barrier(8), []

        def want():
            holding = lease.held(tmp_path)
            start.wait()
            with contextlib.suppress(BlockingIOError):
                holding.__enter__()
                won.append(holding)  # kept, for what is collected gives its lease back

        threads = [threading.Thread(target=want) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert lease.newest(tmp_path) == 2
        for entered in won:
            entered.__exit__(None, None, None)


def test_a_claim_so_slow_that_others_have_come_and_gone_fails(tmp_path, monkeypatch):
    for _ in range(4):
        with lease.held(tmp_path):
            pass
    seen = iter([1])  # as it was long ago
    monkeypatch.setattr(
        lease, "newest", lambda path, now=lease.newest: next(seen, None) or now(path)
    )
    with pytest.raises(BlockingIOError):
        lease.held(tmp_path).__enter__()


def test_a_folder_that_is_not_ours_to_write_has_a_state(tmp_path, monkeypatch):
    def refuse(self):
        raise PermissionError

    with lease.held(tmp_path):
        monkeypatch.setattr(pathlib.Path, "touch", refuse)
        assert lease.state(tmp_path) == lease.ALIVE
        age(tmp_path, lease.SECONDS + 1)
        assert lease.state(tmp_path) == lease.LOST


def test_an_owner_that_lives_renews_and_one_that_is_stuck_does_not(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "SECONDS", 0.2)
    with lease.held(tmp_path) as ours:
        time.sleep(0.5)
        assert lease.state(tmp_path) == lease.ALIVE
        monkeypatch.setattr(lease, "STUCK_SECONDS", 0.0)  # as if no step had ended for long
        time.sleep(0.5)
        assert lease.state(tmp_path) == lease.LOST
        monkeypatch.setattr(lease, "STUCK_SECONDS", 60.0)
        ours.progress()
        time.sleep(0.2)
        assert lease.state(tmp_path) == lease.ALIVE


def test_a_run_taken_over_is_busy_for_its_old_owner_and_ends_with_the_bits_of_one_alone(
    tmp_path, elsewhere
):
    """The first owner sleeps in mid-run, wakes when the second is done, and writes nothing."""
    run.train(TINY, tmp_path / "alone", progress.Silent())
    path = tmp_path / "w" / TINY.run_id
    elsewhere("a")
    slept = []

    class Sleeps(progress.Silent):
        def update(self, step, metrics):
            if step >= 6 and not slept:
                slept.append(step)
                age(path, lease.SECONDS + 1)
                elsewhere("b")
                (second,) = execute.run_cells([TINY], tmp_path / "w")
                assert second.status == "done"
                slept.append((path / record.NAME).read_bytes())

    elsewhere("a")
    with pytest.raises(BlockingIOError, match="taken this run over"):
        run.train(TINY, tmp_path / "w", Sleeps())
    assert (path / record.NAME).read_bytes() == slept[1]
    assert rows(path) == rows(tmp_path / "alone" / TINY.run_id)
