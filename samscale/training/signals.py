"""Signals that ask instead of kill."""

import signal
import threading
from contextlib import contextmanager

# Heard outside of runs. Python drops what a handler raises within a finalizer or a callback, so
# the next run looks here, too.
heard: list[int] = []


@contextmanager
def collected():
    """A list that receives SIGINT and SIGTERM instead of the process dying of them.

    The second of a kind does what it always does. A signal that nothing came of, for the run was at
    its end, is passed on where somebody listens. Threads but the main one collect nothing.
    """
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    asked += heard
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}

    def note(signum, frame):
        asked.append(signum)
        signal.signal(signum, before[signum])

    for signum in before:
        signal.signal(signum, note)
    try:
        yield asked
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
    for signum in asked[:1]:
        if before[signum] not in (signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler):
            signal.raise_signal(signum)
