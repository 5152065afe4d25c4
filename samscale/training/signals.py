"""Signals that ask instead of kill. A signal that was heard always ends a study."""

import signal
import sys
import threading
from contextlib import contextmanager

from samscale.errors import Interrupted

STOPPED = "stopped; finished cells are kept, and the same command goes on from there"
ASKING = (signal.SIGINT, signal.SIGTERM)

# Heard outside of runs. Python drops what a handler raises within a finalizer or a callback, and a
# user's code may catch it, so whoever listens looks here, too.
heard: list[int] = []


@contextmanager
def stoppable(said: str = STOPPED):
    """SIGINT and SIGTERM become ``Interrupted(said)`` between runs; a run collects its own.

    Threads but the main one hear no signals: there, they are left alone.
    """
    if not _may_listen():
        yield
        return

    def stop(signum, frame):
        heard.append(signum)
        raise Interrupted(said, signum)

    def unraisable(what):
        if not isinstance(what.exc_value, Interrupted):
            complain(what)

    before = {s: signal.signal(s, stop) or signal.SIG_DFL for s in ASKING}
    complain, sys.unraisablehook = sys.unraisablehook, unraisable
    try:
        yield
        check(said)
    finally:
        heard.clear()
        sys.unraisablehook = complain
        _restore(before)


def check(said: str = STOPPED) -> None:
    """Raises ``Interrupted(said)`` for a signal that was heard and of which nothing has come."""
    if heard:
        raise Interrupted(said, heard[0])


@contextmanager
def collected():
    """A list that receives SIGINT and SIGTERM instead of the process dying of them.

    The second of a kind does what it always does. A signal that nothing came of, for the run was at
    its end or has failed, is passed on where somebody listens. Threads but the main one collect
    nothing.
    """
    asked: list[int] = []
    if not _may_listen():
        yield asked
        return
    asked += heard
    handlers = {s: signal.getsignal(s) for s in ASKING}
    before = {s: handler for s, handler in handlers.items() if handler is not None}  # not of C

    def note(signum, frame):
        asked.append(signum)
        signal.signal(signum, before[signum])

    for signum in before:
        signal.signal(signum, note)
    try:
        yield asked
    except Interrupted:
        asked.clear()  # this is what has come of it
        raise
    finally:
        _restore(before)
        for signum in asked[:1]:
            if before[signum] not in (signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler):
                signal.raise_signal(signum)


@contextmanager
def kept(signum: int):
    """The handler of a signal is afterwards what it was, whatever a library has done to it."""
    handler = signal.getsignal(signum)
    try:
        yield
    finally:
        if _may_listen():
            signal.signal(signum, handler)


def _may_listen() -> bool:
    return threading.current_thread() is threading.main_thread()


def _restore(handlers) -> None:
    for signum, handler in handlers.items():
        signal.signal(signum, handler)
