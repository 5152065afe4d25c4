"""Local processes as an executor: each with its share of the cores, or with a device of its own."""

import contextlib
import dataclasses
import json
import os
import pathlib
import queue
import select
import subprocess
import sys
import threading

from samscale.config import from_mapping
from samscale.errors import Interrupted
from samscale.study.execute import FAILED, Executor, Outcome, run_cells
from samscale.training import compiled, folder, lease, signals

ATTEMPTS = 2  # a cell whose process dies so often (of memory, say) has failed
CHUNK = 8  # cells handed over at a time: few, so that all workers end together


def processes(workers: int = 0, replicas: int = 0) -> Executor:
    """An executor of ``workers`` processes; 0: one for each GPU, else one for each core."""
    gpus = _gpus()
    workers = workers or len(gpus) or os.cpu_count() or 1

    def execute(chunks, workdir):
        jobs: queue.SimpleQueue = queue.SimpleQueue()
        outcomes: queue.SimpleQueue = queue.SimpleQueue()
        total = 0
        for chunk in chunks:
            for i in range(0, len(chunk), CHUNK):
                jobs.put(chunk[i : i + CHUNK])
            total += len(chunk)
        at = workers, gpus, replicas, workdir, jobs, outcomes
        team = [_Worker(i, *at) for i in range(min(workers, jobs.qsize()))]
        try:
            for _ in range(total):
                outcome = outcomes.get()
                if isinstance(outcome, Exception):
                    raise outcome
                yield outcome
        finally:
            for worker in team:
                worker.stop()

    return execute


class _Worker:
    """A thread that feeds a process, and replaces it when it dies."""

    def __init__(self, index, workers, gpus, replicas, workdir, jobs, outcomes):
        self.index, self.workers, self.gpus, self.replicas = index, workers, gpus, replicas
        self.workdir, self.jobs, self.outcomes = pathlib.Path(workdir), jobs, outcomes
        self.process, self.stopped = None, False
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def stop(self):
        """Ask the process to save and go; wait for it."""
        self.stopped = True
        if process := self.process:  # the thread may let go of it meanwhile
            process.terminate()
        self.thread.join()

    def _work(self):
        try:
            while not self.stopped:
                try:
                    chunk = self.jobs.get_nowait()
                except queue.Empty:
                    break
                self._run(chunk)
        except Exception as error:  # shown by whoever waits for outcomes
            self.outcomes.put(error)
        finally:
            self._end()

    def _end(self):
        """Let the process finish what it is at; its exit code."""
        if self.process is None:
            return None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        code = self.process.wait()
        self.process.stdout.close()
        self.process = None
        return code

    def _run(self, chunk):
        left, deaths = list(chunk), 0
        while left and not self.stopped:
            if self.process is None:
                self.process = self._start()
            for answer in self._ask(left, alone=deaths > 0):  # so that it is clear who dies
                if "error" in answer:
                    raise OSError(answer["error"])
                self.outcomes.put(Outcome(**answer))
                left = [config for config in left if config.run_id != answer["run_id"]]
                deaths = 0
            if left and not self.stopped:
                code, deaths = self._end(), deaths + 1
                if deaths == ATTEMPTS:
                    self._give_up(left.pop(0), code)
                    deaths = 0

    def _give_up(self, config, code):
        reason = f"its process died {ATTEMPTS} times, last with code {code}"
        reason += " (killed: out of memory?)" if code == -9 else ""
        folder.fail(self.workdir / config.run_id, reason)
        self.outcomes.put(Outcome(config.run_id, FAILED, reason))

    def _ask(self, configs, alone):
        """Outcomes as they come; fewer than asked for where the process dies or hangs."""
        replicas = 1 if alone else self.replicas
        cells = [dataclasses.asdict(config) for config in configs]
        before = {c.run_id: lease.newest(self.workdir / c.run_id) for c in configs}
        try:
            job = json.dumps({"cells": cells, "replicas": replicas})
            self.process.stdin.write(f"{job}\n".encode())
        except OSError:
            return
        for _ in configs:
            line = self._line(before)
            if not line.endswith(b"\n"):
                return
            yield json.loads(line)

    def _line(self, before):
        """The process's next, cut short where it ends; it is ended where a lease of its lapses."""
        while not select.select([self.process.stdout], [], [], lease.SECONDS / 4)[0]:
            for run_id, number in before.items():
                path = self.workdir / run_id
                if lease.newest(path) > number and lease.state(path) == lease.LOST:
                    self.process.kill()
        return self.process.stdout.readline()

    def _start(self):
        environment = dict(os.environ)
        if self.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self.gpus[self.index % len(self.gpus)]
        process = subprocess.Popen(
            [sys.executable, "-m", "samscale.study.workers", str(self.workdir)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,  # lines that have come are seen by select
            env=environment,
            start_new_session=True,  # Ctrl-C reaches this process, which passes it on once
        )
        if hasattr(os, "sched_setaffinity"):  # Linux
            cores = sorted(os.sched_getaffinity(0))
            share = cores[self.index % len(cores) :: self.workers]
            os.sched_setaffinity(process.pid, share)
        return process


def _gpus():
    """What CUDA may use, without starting it here."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [d for d in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if d]
    found = pathlib.Path("/proc/driver/nvidia/gpus")
    return [str(i) for i in range(len(list(found.iterdir())))] if found.is_dir() else []


def serve(workdir) -> int:
    """Jobs from stdin, a line each; outcomes to stdout, a line each."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a task prints does not mix with the answers
    compiled.keep_programs()
    answer = lambda content: print(json.dumps(content), file=answers, flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        try:
            for outcome in run_cells(map(from_mapping, job["cells"]), workdir, job["replicas"]):
                answer(outcome._asdict())
                signals.check("stopped")
        except OSError as error:
            answer({"error": str(error)})
    return 0


def main(workdir) -> int:
    """``serve``; a signal ends it wherever it is, and not only within a run."""
    try:
        with signals.stoppable("stopped"):
            return serve(workdir)
    except Interrupted as stop:
        return 128 + stop.signum


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
