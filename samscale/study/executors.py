"""Where cells run, by name."""

from samscale.config import choose as choose_from
from samscale.study.execute import Executor, here
from samscale.study.workers import processes

EXECUTORS = {"here": lambda workers: here, "processes": processes}


def choose(name: str, workers: int = 0) -> Executor:
    """Raises ``ValueError`` where there is no such executor, or its package is not installed."""
    return choose_from("executor", name, EXECUTORS)(workers)
