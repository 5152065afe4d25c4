"""Where cells run, by name."""

from collections.abc import Mapping

from samscale.config import choose as choose_from
from samscale.laws import AT_ONCE
from samscale.study.execute import Executor
from samscale.study.execute import here as in_turn
from samscale.study.workers import processes


def here(workers: int = 0, replicas: int = 0) -> Executor:
    if workers:
        raise ValueError(f"workers={workers}: must be 0 for executor='here'")
    return in_turn(replicas)


def ray(workers: int = 0, **options) -> Executor:
    from samscale.study.ray_cluster import ray

    return ray(workers, **options)


def slurm(workers: int = 0, **options) -> Executor:
    from samscale.study.slurm import slurm

    return slurm(workers, **options)


EXECUTORS = {"here": here, "processes": processes, "ray": ray, "slurm": slurm}


LOCAL = ("here", "processes")


def choose(
    name: str, workers: int = 0, replicas: int = 0, options: Mapping[str, str] | None = None
) -> Executor:
    """Raises ``ValueError`` where there is no such executor, its package is not installed, or it
    has no such option."""
    make = choose_from("executor", name, EXECUTORS)
    for field, number in (("workers", workers), ("replicas", replicas)):
        if not AT_ONCE.holds(number):
            raise ValueError(f"{field}={number}: must be {AT_ONCE.words}")
    if name in LOCAL:
        if options:
            raise ValueError(f"option={next(iter(options))!r}: executor={name!r} has no options")
        return make(workers, replicas)
    if replicas:
        raise ValueError(f"replicas={replicas}: must be 0 for executor={name!r}")
    return make(workers, **(options or {}))
