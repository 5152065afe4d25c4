"""Cells as tasks of a Ray cluster. The work folder has one path on all nodes: a shared file system.

A worker has the environment of ``ray start`` on its node, and ``SAMSCALE_*`` of this process.
"""

import contextlib
import importlib.util
import os
import signal
import socket

from samscale.laws import MOST
from samscale.study import remote
from samscale.study.remote import ENDED, RUNNING, State
from samscale.training import compiled, signals


def ray(workers=0, address="auto", num_cpus="1", num_gpus="0", **unknown):
    """An executor of cells with so many cores and GPUs; ``workers`` at a time, 0: all that fit.

    Raises ``ValueError`` (options; no package), ``ConnectionError`` (no cluster at ``address``).
    """
    for name in unknown:
        raise ValueError(f"option={name!r}: choose one of address, num_cpus, num_gpus")
    needs = {"CPU": _amount("num_cpus", num_cpus), "GPU": _amount("num_gpus", num_gpus)}
    if not _Ray(address, workers, needs).slots():
        asked = f"option='num_cpus={num_cpus}', 'num_gpus={num_gpus}'"
        raise ValueError(f"{asked}: must be what a node of the cluster at {address!r} has, not 0")
    return lambda chunks, workdir: remote.supervise(_Ray(address, workers, needs), chunks, workdir)


class _Ray:
    """An ``Engine``. Retries are the supervisor's: Ray may wait for ever for a node cut off."""

    chunk = 1  # Ray's processes live on from task to task, and their programs with them

    def __init__(self, address, workers, needs):
        self.ray, self.workers, self.needs = _connected(address), workers, needs
        cpus, gpus = needs.values()
        found = {name: value for name, value in os.environ.items() if name.startswith("SAMSCALE_")}
        found["NPROC"] = str(max(int(cpus), 1))  # threads of XLA
        if not gpus:
            found["JAX_PLATFORMS"] = "cpu"  # else every cell takes the first GPU that it sees
        elif gpus < 1:
            found["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{0.9 * gpus:.3f}"
        amounts = {"num_cpus": cpus, "num_gpus": gpus, "max_retries": 0}
        self.task = self.ray.remote(_work).options(**amounts, runtime_env={"env_vars": found})

    def slots(self):
        needs = {name: amount for name, amount in self.needs.items() if amount}
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        fits = [min((n.get(name, 0) / a for name, a in needs.items()), default=0) for n in nodes]
        room = sum(int(fit + 1e-9) for fit in fits)
        return min(room, self.workers or room)

    def submit(self, chunks, workdir):
        return [self.task.remote(remote.plain(c), str(workdir.absolute())) for c in chunks]

    def states(self, jobs):
        ended = self.ray.wait(list(jobs), num_returns=len(jobs), timeout=0)[0] if jobs else []
        return [State(ENDED, self._error(j)) if j in ended else State(RUNNING) for j in jobs]

    def _error(self, job):
        try:
            self.ray.get(job, timeout=1)
        except Exception as error:
            cause = getattr(error, "cause", None) or error  # else a page of traceback
            return f"{type(cause).__name__}: {cause}".splitlines()[0][:500]
        return ""

    def cancel(self, job):
        with contextlib.suppress(Exception):  # its node may be out of reach
            self.ray.cancel(job, force=True)

    def close(self):
        self.ray.shutdown()  # this process only: the cluster is its owner's


def _work(configs, workdir):
    compiled.keep_programs()
    remote.work(configs, workdir)


def _amount(name, text):
    with contextlib.suppress(ValueError):
        if 0 <= (amount := float(text)) <= 1 or (1 < amount <= MOST and amount.is_integer()):
            return amount
    raise ValueError(f"option='{name}={text}': must be a whole number, or one between 0 and 1")


def _connected(address):
    """The package, once it has a connection. Raises ``ConnectionError`` in seconds, not minutes."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # looked at by the import
    if not importlib.util.find_spec("ray"):
        raise ValueError("executor='ray': needs the package ray: pip install 'samscale[ray]'")
    import ray

    try:
        if not ray.is_initialized():
            place = os.environ.get("RAY_ADDRESS", "") if address == "auto" else address
            host, _, port = place.removeprefix("ray://").rpartition(":")
            if port.isdigit():
                socket.create_connection((host, int(port)), timeout=5).close()
            with signals.kept(signal.SIGTERM):  # ray.init takes it
                ray.init(address, log_to_driver=False, logging_level="CRITICAL")
    except Exception as error:
        sentence = f"address={address!r}: no Ray cluster there; start one with: ray start --head"
        raise ConnectionError(f"{sentence} ({str(error).partition(chr(10))[0]})") from error
    return ray
