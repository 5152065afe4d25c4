"""Who may write into a run folder: one process, for as long as it shows that it lives.

Processes of one machine exclude each other by the folder's lock, which the system takes from a dead
process at once. Machines that share a file system may not see each other's locks, so the owner also
holds a *lease*: a numbered file ``.lease-N`` whose time it renews. A lease that was not renewed for
``SECONDS`` has lapsed, and whoever creates ``.lease-(N+1)`` first, which the file system lets one
process do, has the folder. An owner that was only cut off or asleep sees the higher number before
it writes again, and stops. All times are the file system's, so clocks need not agree.
"""

import contextlib
import fcntl
import functools
import json
import os
import pathlib
import socket
import threading
import time

SECONDS = float(os.environ.get("SAMSCALE_LEASE_SECONDS", 60))  # without a sign of life
STUCK_SECONDS = float(os.environ.get("SAMSCALE_STUCK_SECONDS", 1800))  # without a step: no life
LOCK, LEASE = ".lock", ".lease-"


class Lease:
    """A folder that is ours until the process dies, hangs, or is taken for dead."""

    def __init__(self, path: pathlib.Path, number: int):
        self.path, self.number = path, number
        self._file = path / f"{LEASE}{number}"
        self._moved = time.monotonic()
        self._ended = threading.Event()
        threading.Thread(target=self._renew, daemon=True).start()

    def progress(self) -> None:
        """The run has moved: it is not stuck."""
        self._moved = time.monotonic()

    def check(self) -> None:
        """Before every write. Raises ``BlockingIOError`` where somebody else has the folder."""
        if _newest(self.path) != self.number:
            raise BlockingIOError(f"{self.path}: another process has taken this run over")

    def _renew(self):
        while not self._ended.wait(SECONDS / 4):
            if time.monotonic() - self._moved < STUCK_SECONDS:
                with contextlib.suppress(OSError):  # a disk out of reach: then it lapses
                    os.utime(self._file)

    def release(self) -> None:
        self._ended.set()
        with contextlib.suppress(OSError):
            os.utime(self._file, (0, 0))


@contextlib.contextmanager
def held(path: pathlib.Path):
    """The lease of a folder. Raises ``BlockingIOError`` where another process is at it."""
    with (path / LOCK).open("w") as lock:
        taken = BlockingIOError(f"{path}: another process is training this run")
        locks = _lock(lock, fcntl.LOCK_EX)
        if locks is False:
            raise taken
        number = _newest(path)
        # Where locks work and this one is free, an owner on this machine is dead.
        if number and not (locks and _is_ours(path, number)) and not _has_lapsed(path, number):
            raise taken
        try:
            with (path / f"{LEASE}{number + 1}").open("x") as file:
                json.dump({"machine": _machine(), "pid": os.getpid()}, file)
        except FileExistsError as error:
            raise taken from error
        with contextlib.suppress(OSError):  # only the newest is looked at
            (path / f"{LEASE}{number - 1}").unlink()
        lease = Lease(path, number + 1)
        try:
            yield lease
        finally:
            lease.release()


def is_alive(path) -> bool:
    """Whether a process is at this run folder now, on whatever machine."""
    path = pathlib.Path(path)
    if not (number := _newest(path)):
        return False
    if _is_ours(path, number):
        with contextlib.suppress(OSError), (path / LOCK).open("r") as lock:
            return _lock(lock, fcntl.LOCK_SH) is False
    return not _has_lapsed(path, number)


def _lock(file, kind):
    """True: locked; False: by somebody else; None: this file system has no locks."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _newest(path) -> int:
    """The highest number of a lease; 0 where there was none."""
    try:
        names = os.listdir(path)
    except FileNotFoundError:
        return 0
    return max((int(n.removeprefix(LEASE)) for n in names if n.startswith(LEASE)), default=0)


def _has_lapsed(path, number) -> bool:
    try:
        renewed = (path / f"{LEASE}{number}").stat().st_mtime
    except FileNotFoundError:  # a newer one has come meanwhile
        return False
    probe = path / LOCK
    probe.touch()  # what time is it where the files are?
    return probe.stat().st_mtime - renewed > SECONDS


def _is_ours(path, number) -> bool:
    """Whether the owner is, or was, on this machine since it was started."""
    try:
        return json.loads((path / f"{LEASE}{number}").read_bytes())["machine"] == _machine()
    except (OSError, ValueError):  # just being written
        return False


@functools.cache
def _machine() -> str:
    boot = pathlib.Path("/proc/sys/kernel/random/boot_id")
    return socket.gethostname() + (f" {boot.read_text().strip()}" if boot.exists() else "")
