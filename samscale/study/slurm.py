"""Cells as jobs of Slurm, through submitit: arrays of chunks, queued again when preempted."""

import contextlib
import io
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings

from samscale.config import choose
from samscale.errors import Interrupted
from samscale.study import remote
from samscale.study.execute import Executor
from samscale.study.remote import ENDED, QUEUED, RUNNING, State
from samscale.training import compiled

ARRAY = 1000  # jobs at a time: the longest array that Slurm takes where nobody changed it
LOOK_SECONDS = 4.0  # between questions to the queue
TIMEOUTS = 20  # time limits of a job; it is queued again after each
DEFAULTS = {"name": "samscale", "timeout_min": 60, "slurm_additional_parameters": {"requeue": True}}


def slurm(workers: int = 0, cluster: str = "slurm", chunk: str = "8", **options) -> Executor:
    """An executor of ``workers`` jobs at a time; 0: as many as Slurm lets run.

    ``options``: submitit's parameters, JSON where a text is that. Raises ``ValueError``.
    """
    engine = choose("cluster", cluster, {"slurm": _Slurm, "local": _Local})
    try:
        import submitit
    except ImportError:
        wrong = "executor='slurm': needs the package submitit: pip install 'samscale[slurm]'"
        raise ValueError(wrong) from None
    if cluster == "slurm" and not (shutil.which("sbatch") and shutil.which("srun")):
        raise ValueError("executor='slurm': found no sbatch: start the study where Slurm is")
    if not (chunk.isdecimal() and int(chunk)):
        raise ValueError(f"chunk={chunk!r}: must be a whole number, 1 or more")
    limit = {"slurm_array_parallelism": workers} if workers else {}

    def start(folder):
        executor = submitit.AutoExecutor(folder, cluster=cluster, slurm_max_num_timeout=TIMEOUTS)
        executor.update_parameters(**DEFAULTS, **limit)
        for name, text in options.items():
            try:
                with warnings.catch_warnings():
                    warnings.filterwarnings("error", message="Setting")  # names of old
                    executor.update_parameters(**{name: _read(text)})
            except Exception as error:  # of many kinds, all of them about this option
                reason = str(error).strip().split("\n")[0].split(" Valid arguments")[0]
                raise ValueError(f"option={f'{name}={text}'!r}: submitit says: {reason}") from None
        return executor

    with tempfile.TemporaryDirectory() as nowhere:
        start(nowhere)  # what is wrong is found before anything is written
    make = lambda: engine(int(chunk), workers, start)
    return lambda chunks, workdir: remote.supervise(make(), chunks, workdir)


class Work:
    """A job. Asked to go, it saves its cell at once; preempted, it is queued again besides."""

    def __call__(self, configs, workdir):
        requeue = signal.getsignal(signal.SIGUSR2)  # submitit's
        preempted = []

        def stop(signum, frame):
            if signal.getsignal(signal.SIGINT) is stop:  # else a run has heard it, and is saving
                raise Interrupted("stopped", signum)

        def preempt(signum, frame):
            if not preempted:
                preempted.append(signum)
                signal.raise_signal(signal.SIGINT)  # heard by the run, where there is one

        signal.signal(signal.SIGINT, stop)
        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGUSR2, preempt)
        compiled.keep_programs()
        try:
            remote.work(configs, workdir)
        except Interrupted as stopped:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # all is saved
            if preempted or _has_grace():
                requeue(signal.SIGUSR2, None)  # does not return
            sys.exit(128 + stopped.signum)

    def checkpoint(self, configs, workdir):
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, configs, workdir)


class _Slurm:
    """Asks ``squeue``, once for all: submitit would ask ``sacct``, which many clusters lack."""

    def __init__(self, chunk, workers, start):
        self.chunk, self.workers, self.start = chunk, workers, start
        self.executor, self.seen, self.asked, self.unwanted = None, {}, 0.0, []

    def slots(self):
        return ARRAY

    def submit(self, chunks, workdir):
        workdir = workdir.resolve()
        if not self.executor:
            (workdir / ".slurm").mkdir(parents=True, exist_ok=True)
            name = tempfile.mkdtemp(prefix=time.strftime("%Y%m%d-%H%M%S-"), dir=workdir / ".slurm")
            self.executor = self.start(name)
        cells = [remote.plain(chunk) for chunk in chunks]
        with _submitting():
            return self.executor.map_array(Work(), cells, [str(workdir)] * len(cells))

    def states(self, jobs):
        """A job that the queue does not know has ended."""
        self.close()
        if jobs and time.monotonic() - self.asked > LOOK_SECONDS:
            self.asked = time.monotonic()
            if (found := _squeue("--array", f"--user={os.getuid()}")) is not None:
                self.seen = {job.job_id: "ENDED" for job in jobs} | found
        return [_state(self.seen.get(job.job_id, "PENDING"), job) for job in jobs]

    def cancel(self, job):
        self.unwanted.append(job.job_id)

    def close(self):
        """Withdraws what is unwanted, all at once."""
        if self.unwanted:
            subprocess.run(["scancel", *self.unwanted], stderr=subprocess.DEVNULL)
            self.unwanted = []


class _Local(_Slurm):
    """The same jobs as processes of this machine: to try things, and for tests."""

    def slots(self):
        return self.workers or os.cpu_count() or 1

    def states(self, jobs):
        return [_state("RUNNING" if job.state == "RUNNING" else "ENDED", job) for job in jobs]

    def cancel(self, job):
        job.cancel()


def _squeue(*which):
    """Job -> its state and the reason for it; None where Slurm does not answer."""
    command = ["squeue", "--noheader", "--format=%i %T %r", *which]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return dict(line.split(maxsplit=1) for line in answer.stdout.splitlines())


def _has_grace():
    """Whether Slurm has told this job to go, yet it runs: preempted, and not requeued by itself."""
    found = _squeue(f"--jobs={os.environ.get('SLURM_JOB_ID')}") or {}
    return any(state.startswith("RUNNING") for state in found.values())


def _state(found, job):
    """As ``squeue`` says it -> as ``supervise`` wants it."""
    if found.startswith(("PENDING", "SUSPENDED")) and "launch fail" not in found:  # held for ever
        return State(QUEUED)
    if not found.startswith(("ENDED", "PENDING")):
        return State(RUNNING)
    outcome, text = "error", job.stderr()
    if job.paths.result_pickle.exists():
        outcome, text = pickle.loads(job.paths.result_pickle.read_bytes())
    return State(ENDED, _last_line(text) if outcome == "error" else "")


def _last_line(text):
    return (text or "").strip().split("\n")[-1][:300]


@contextlib.contextmanager
def _submitting():
    """Without what a job that the driver itself may be in has set; with one sentence at most."""
    from submitit import helpers
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    kept = {k: v for k, v in os.environ.items() if k.startswith(("SBATCH_", "SLURM_CONF"))}
    try:
        with helpers.clean_env(), contextlib.redirect_stderr(io.StringIO()):
            os.environ.update(kept)
            yield
    except (FailedJobError, FailedSubmissionError) as error:
        raise OSError(_last_line(str(error))) from error


def _read(text):
    try:
        return json.loads(text)
    except ValueError:
        return text
