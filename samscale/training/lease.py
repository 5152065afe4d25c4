"""Who may write into a run folder: one process, for as long as it shows that it lives.

The owner holds a *lease*: a numbered file ``.lease-N`` whose time it renews. A lease that was not
renewed for ``SECONDS``, or whose owner is a dead process of this machine, is lost; whoever creates
``.lease-(N+1)`` first, which the file system lets one process do, has the folder. An owner that was
only cut off or asleep sees the higher number before it writes again, and stops. No locks: file
systems that machines share may not have them. Times are the file system's: clocks need not agree.
"""

import contextlib
import functools
import json
import os
import pathlib
import re
import socket
import threading
import time

from samscale.training import files

SECONDS = float(os.environ.get("SAMSCALE_LEASE_SECONDS", 60))  # without a sign of life
STUCK_SECONDS = float(os.environ.get("SAMSCALE_STUCK_SECONDS", 1800))  # without a step: no life
LEASE, CLOCK = ".lease-", ".clock"
FREE, ALIVE, LOST = "free", "alive", "lost"


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
        if newest(self.path) != self.number:
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
    taken = BlockingIOError(f"{path}: another process is training this run")
    number = newest(path)
    if state(path) == ALIVE:
        raise taken
    try:
        with (path / f"{LEASE}{number + 1}").open("x") as file:
            pid = os.getpid()
            owner = {"machine": _machine(), "pid": pid, "started": _started(pid)}
            file.write(files.checked_line(owner)[0].decode())
    except FileExistsError as error:
        raise taken from error
    with contextlib.suppress(OSError):  # only the newest is looked at
        (path / f"{LEASE}{number - 1}").unlink()
    if newest(path) != number + 1:  # of a claim so slow that others have come and gone
        raise taken
    lease = Lease(path, number + 1)
    try:
        yield lease
    finally:
        lease.release()


def state(path) -> str:
    """FREE: never taken, or given back. ALIVE. LOST: its owner has died or is out of reach."""
    path = pathlib.Path(path)
    if not (number := newest(path)):
        return FREE
    file = path / f"{LEASE}{number}"
    try:
        renewed = file.stat().st_mtime
    except FileNotFoundError:  # a newer one has come meanwhile
        return ALIVE
    if renewed == 0:
        return FREE
    late = _now(path) - renewed > SECONDS
    return LOST if late or _owner_is_dead(file) else ALIVE


def _now(path) -> float:
    """What time it is where the files are."""
    clock = path / CLOCK
    try:
        clock.touch()
        return clock.stat().st_mtime
    except OSError:  # somebody else's folder, for us to read only
        return time.time()


def newest(path) -> int:
    """The number of the folder's last lease; 0 where there was none."""
    try:
        names = os.listdir(path)
    except FileNotFoundError:
        return 0
    numbers = [name.removeprefix(LEASE) for name in names if name.startswith(LEASE)]
    return max((int(n) for n in numbers if re.fullmatch("[1-9][0-9]*", n)), default=0)


def _owner_is_dead(file) -> bool:
    """As far as this machine can know: not of processes elsewhere.

    A lease that is just being written, or damaged, lapses if nobody renews it.
    """
    try:
        owner = json.loads(files.verified_line(file.read_bytes())[0])
    except (OSError, ValueError):
        return False
    return owner["machine"] == _machine() and not _lives(owner["pid"], owner["started"])


def _lives(pid: int, started: str) -> bool:
    """Whether there is such a process, and not a later one of the same number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's
    return not started or _started(pid) in ("", started)


def _started(pid: int) -> str:
    """When; "" where the system does not tell, "never" of a process that has ended."""
    try:
        if os.readlink("/proc/self") != str(os.getpid()):
            return ""  # the processes of another name space
        state, *fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "never" if state in "ZX" else fields[18]


@functools.cache
def _machine() -> str:
    """With the name space of its processes: containers number their own."""
    found = [socket.gethostname()]
    with contextlib.suppress(OSError):
        found.append(pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        found.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(found)
