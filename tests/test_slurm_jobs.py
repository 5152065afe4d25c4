"""Jobs of submitit: as processes of this machine, and in a real Slurm of one node where there is
one to start."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("submitit")

from runs import TINY, rows, same
from samscale import cli
from samscale.study import cells, remote, slurm
from samscale.training import checkpoint, folder, lease, progress, run
from slurm_study import COMMAND, FILE, words


def local(*options):
    return [f"--option={text}" for text in ("cluster=local", *options)]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("study") / "seeds.py"
    path.write_text(FILE)
    return path


@pytest.fixture(scope="module")
def configs(file):
    return [cell.config for cell in cells(cli.studies.load_study(str(file)))]


@pytest.fixture(scope="module")
def alone(configs, tmp_path_factory):
    """The folder where each cell was run in this process, undisturbed."""
    workdir = tmp_path_factory.mktemp("alone")
    for config in configs:
        run.train(config, workdir, progress.Silent())
    return workdir


@contextlib.contextmanager
def driven(command):
    """A driver; its jobs go with it when a test fails."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def until(found, seconds=90):
    """What ``found()`` gives, as soon as it is something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answer := found():
            return answer
        time.sleep(0.02)
    raise TimeoutError


def alive(workdir, configs):
    """The cells that are being trained, with a line of metrics at least."""
    paths = [workdir / config.run_id for config in configs]
    begun = lambda path: (path / "metrics.jsonl").exists() and len(rows(path)) > 3
    return [path for path in paths if lease.state(path) == lease.ALIVE and begun(path)]


def all_at_once(workdir, configs, kill=os.kill):
    """The cells while all are being trained: whichever comes first is held until the last is there.

    ``kill(pid, signal)``, where the processes are.
    """
    held = {}

    def gathered():
        for path in alive(workdir, configs):
            if path not in held:
                held[path] = pid(path)
                kill(held[path], signal.SIGSTOP)
        return len(held) == len(configs)

    until(gathered)
    for process in held.values():
        kill(process, signal.SIGCONT)
    return list(held)


def number(path):
    """How many processes have been at this cell."""
    return lease.newest(path)


def pid(path):
    return json.loads((path / f"{lease.LEASE}{number(path)}").read_bytes())["pid"]


def assert_each_is_done_once(workdir, configs, alone):
    lines = (workdir / "study-seeds" / "study.jsonl").read_text().splitlines()
    noted = [(row["run_id"], row["status"]) for row in map(json.loads, lines)]
    assert sorted(noted) == sorted((config.run_id, "done") for config in configs)
    for config in configs:
        assert folder.is_done(workdir / config.run_id)
        assert rows(workdir / config.run_id) == rows(alone / config.run_id)


def test_killed_and_preempted_jobs_are_submitted_again(tmp_path, file, configs, alone):
    command = COMMAND + words(file, tmp_path, "--workers=2", *local("chunk=1"))
    with driven(command) as process:
        first, second = all_at_once(tmp_path, configs)
        os.kill(pid(first), signal.SIGKILL)
        before = pid(second)
        os.kill(before, signal.SIGUSR2)
        until(lambda: number(second) == 2 or lease.state(second) != lease.ALIVE)
        assert checkpoint.step(second) > 0  # saved at once: 30 seconds have not passed
        until(lambda: number(second) == 2)
        assert process.wait(timeout=120) == 0
    assert_each_is_done_once(tmp_path, configs, alone)
    assert {number(tmp_path / config.run_id) for config in configs} == {2}
    (logs,) = (tmp_path / ".slurm").iterdir()
    assert len(list(logs.glob("*_submitted.pkl"))) == 2 + 1  # requeued is not submitted again
    assert "Requeued job" in "".join(path.read_text() for path in logs.glob("*.out"))


def test_jobs_outlive_their_driver_and_the_next_one_waits(tmp_path, file, configs, alone):
    command = COMMAND + words(file, tmp_path, "--workers=1", *local("chunk=1"))
    with driven(command) as process:
        (held,) = until(lambda: alive(tmp_path, configs))
        job = pid(held)
        os.kill(job, signal.SIGSTOP)  # so that it is slower than the next driver
        process.kill()
    try:
        with driven(command) as process:
            until(lambda: folder.is_done(tmp_path / configs[1].run_id))
            assert process.poll() is None
            os.kill(job, signal.SIGCONT)
            assert process.wait(timeout=120) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(job, signal.SIGCONT)
    assert_each_is_done_once(tmp_path, configs, alone)
    assert {number(tmp_path / config.run_id) for config in configs} == {1}  # none taken over


@pytest.mark.parametrize("signals", ["TERM", "TERM TERM", "USR2", "USR2 USR2", "TERM USR2"])
def test_a_job_that_is_asked_to_go_saves_first(tmp_path, monkeypatch, whole, signals):
    signals = [getattr(signal, f"SIG{name}") for name in signals.split()]
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)}

    class Asked(progress.Silent):
        def update(self, step, values):
            if step == 3:
                for signum in signals:
                    os.kill(os.getpid(), signum)

    monkeypatch.setattr(progress, "Silent", Asked)
    signal.signal(signal.SIGUSR2, lambda signum, frame: sys.exit("queued again"))
    config = vars(TINY) | {"checkpoint_seconds": 30.0}
    try:
        with pytest.raises(SystemExit) as stopped:
            slurm.Work()([config], str(tmp_path))
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
    assert stopped.value.code == ("queued again" if signal.SIGUSR2 in signals else 143)
    assert checkpoint.step(tmp_path / TINY.run_id) == 3
    assert lease.state(tmp_path / TINY.run_id) != lease.ALIVE
    remote.work([config], tmp_path)
    same(tmp_path / TINY.run_id, whole)


NODE = """
ip link set lo up
ip address add 10.99.0.1/24 dev lo
cd "$1"
mkdir state spool munge && chmod 700 munge
head -c 128 /dev/urandom > munge/key && chmod 400 munge/key
munged --force --key-file=$1/munge/key --socket=$1/munge/socket --pid-file=$1/munge/pid \
    --log-file=$1/munge/log --seed-file=$1/munge/seed
cat > slurm.conf <<CONF
ClusterName=tiny
SlurmctldHost=$(hostname -s)(10.99.0.1)
AuthInfo=socket=$1/munge/socket,cred_expire=5
SlurmUser=root
StateSaveLocation=$1/state
SlurmdSpoolDir=$1/spool
SlurmctldPidFile=$1/controller.pid
SlurmdPidFile=$1/node.pid
SlurmctldLogFile=$1/controller.log
SlurmdLogFile=$1/node.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=5
ReturnToService=2
NodeName=$(hostname -s) NodeAddr=10.99.0.1 CPUs=2 State=UNKNOWN
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 GraceTime=10
PartitionName=high Nodes=ALL PriorityTier=9
CONF
export SLURM_CONF=$1/slurm.conf
slurmctld
slurmd
until sinfo --noheader --format=%T | grep -q idle; do sleep 0.2; done
touch ready
sleep 600
"""


def _missing():
    names = ["slurmctld", "slurmd", "munged", "sbatch", "unshare", "nsenter", "ip"]
    if absent := [name for name in names if not shutil.which(name)]:
        return f"not installed: {', '.join(absent)}"
    apart = ["unshare", "--net", "--pid", "--fork", "--mount-proc", "true"]
    return "" if subprocess.run(apart, stderr=-3).returncode == 0 else "unshare is not permitted"


@pytest.fixture
def node(tmp_path):
    """Slurm on one node with an address of its own that nobody can reach; what runs a command
    there."""
    if reason := _missing():
        pytest.skip(reason)
    place = tmp_path / "node"
    place.mkdir()
    apart = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    process = subprocess.Popen([*apart, "sh", "-ec", NODE, "sh", str(place)])
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
    try:
        until((place / "ready").exists, 30)
        inside = ["nsenter", f"--target={children.read_text().strip()}", "--net", "--pid"]
        yield [*inside, "env", f"SLURM_CONF={place / 'slurm.conf'}"]
    finally:
        process.kill()
        process.wait()


def test_a_real_slurm_preempts_and_kills_jobs_and_every_cell_is_done_once(
    tmp_path, node, file, configs, alone
):
    def ask(*command):
        return subprocess.run([*node, *command], capture_output=True, text=True, check=True).stdout

    work = tmp_path / "w"
    options = ["--workers=2", "--option=chunk=1", "--option=slurm_partition=low"]
    with driven([*node, *COMMAND, *words(file, work, *options)]) as process:
        first = all_at_once(
            work, configs, lambda pid, signum: ask("kill", f"-{signum:d}", str(pid))
        )
        ask("srun", "--partition=high", "--cpus-per-task=2", "true")  # preempts both
        assert all(checkpoint.step(path) > 0 for path in first)  # saved, for Slurm had waited
        queue = ask("squeue", "--array", "--noheader", "--format=%i %T").split("\n")
        assert {"1_0 PENDING", "1_1 PENDING"} <= set(queue)
        again = until(lambda: alive(work, configs))[0]
        assert number(again) == 2
        ask("kill", "-9", str(pid(again)))
        assert process.wait(timeout=120) == 0
    assert_each_is_done_once(work, configs, alone)
    (logs,) = (work / ".slurm").iterdir()
    assert len(list(logs.glob("*_submitted.pkl"))) == len(configs) + 1  # only what was killed
    until(lambda: not ask("squeue", "--noheader"), 20)  # nothing is left
