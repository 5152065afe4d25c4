"""A study on a real Ray cluster of three machines, two of which are lost in mid-study.

Machines are namespaces of this one: each has a host name of its own, so none takes another's lease
for one of its own, and hangs on a cable of its own.
"""

import contextlib
import importlib.util
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import pytest

from runs import rows
from samscale.cli.studies import load_study
from samscale.study import conduct, executors
from samscale.study.grid import cells

HEAD, RED, BLUE = "10.77.0.1", "10.77.0.2", "10.77.0.3"
RAY = str(pathlib.Path(sys.executable).parent / "ray")
NODE = ["--num-cpus=1", "--object-store-memory=80000000", "--disable-usage-stats"]
CLI = [sys.executable, "-c", "import sys; from samscale import cli; sys.exit(cli.main())"]
EPOCHS = 300
FILE = f"""
from samscale.config import Config
from samscale.study import Study, methods, repeated, scientific

BASE = Config(num_epochs={EPOCHS}, batch_size=100, checkpoint_seconds=0.2)

def get_study():
    axes = (
        scientific("num_neurons", [(4,), (8,)]),
        methods(BASE, "sgd", "sam"),
        repeated("seed", range(3)),
    )
    return Study(question="?", base=BASE, axes=axes)
"""


def permitted():
    return shutil.which("unshare") and not subprocess.run(["unshare", "-nu", "true"]).returncode


pytestmark = [
    pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="needs the package ray"),
    pytest.mark.skipif(not permitted(), reason="needs unshare -n"),
]


class Machine:
    """Commands with a network and a host name of their own."""

    def __init__(self, name):
        boot = f"hostname {name}; ip link set lo up; echo up; exec sleep infinity"
        self.init = subprocess.Popen(["unshare", "-nu", "sh", "-c", boot], stdout=subprocess.PIPE)
        assert self.init.stdout.readline() == b"up\n"

    def command(self, *words):
        return ["nsenter", f"--target={self.init.pid}", "--net", "--uts", *words]

    def run(self, line):
        subprocess.run(self.command(*line.split()), check=True)

    def signal(self, signum):
        """To all that runs here."""
        here = os.readlink(f"/proc/{self.init.pid}/ns/uts")
        for path in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.readlink(path / "ns" / "uts") == here and int(path.name) != self.init.pid:
                    os.kill(int(path.name), signum)

    def off(self):
        self.signal(signal.SIGKILL)
        self.init.kill()
        self.init.wait()
        self.init.stdout.close()


def wire(head, machine, name, address):
    """A cable from a machine to the head, where its end has the machine's name."""
    head.run(f"ip link add name {name} type veth peer name eth0 netns {machine.init.pid}")
    head.run(f"ip link set dev {name} master bridge up")
    machine.run(f"ip addr add {address}/24 dev eth0")
    machine.run("ip link set eth0 up")


@pytest.fixture(scope="module")
def cluster():
    """Machines by name; the head has the driver, and a core for cells, too."""
    machines = {name: Machine(name) for name in ("head", "red", "blue")}
    own = tempfile.mkdtemp(prefix="ray")  # short, for sockets
    short = {"SAMSCALE_LEASE_SECONDS": "3", "SAMSCALE_START_SECONDS": "60"}
    env = os.environ | short | {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    env.pop("RAY_ADDRESS", None)

    def start(name, address, *words):
        words = [RAY, "start", f"--node-ip-address={address}", *words, *NODE]
        command = machines[name].command(*words)
        for _ in range(2):  # on a busy machine Ray may not wait long enough
            done = subprocess.run(command, env=env, cwd="/", capture_output=True, text=True)
            if not done.returncode:
                return
        raise AssertionError(done.stderr)

    try:
        head = machines["head"]
        for line in ("add name bridge type bridge", "set dev bridge up"):
            head.run(f"ip link {line}")
        head.run(f"ip addr add {HEAD}/24 dev bridge")
        begin = ["--head", "--port=6379", "--include-dashboard=false", f"--temp-dir={own}"]
        start("head", HEAD, *begin)
        for name, address in (("red", RED), ("blue", BLUE)):
            wire(head, machines[name], name, address)
            start(name, address, f"--address={HEAD}:6379")
        yield machines, env
    finally:
        for machine in machines.values():
            machine.off()
        shutil.rmtree(own, ignore_errors=True)


def study(cluster, tmp_path):
    machines, env = cluster
    (tmp_path / "lost.py").write_text(FILE)
    words = ["study", str(tmp_path / "lost.py"), f"--workdir={tmp_path / 'w'}"]
    command = machines["head"].command(*CLI, *words, "--executor=ray", f"--address={HEAD}:6379")
    both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(command, env=env, text=True, **both)


def until(what, process, seconds=60):
    """What it finds."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def at_work(workdir, machine):
    """The folder of a cell that the machine is at, with a checkpoint."""
    for path in workdir.glob("*/checkpoint.msgpack"):
        if not (path.parent / "done").exists() and owner(path.parent) == machine:
            return path.parent
    return None


def owner(path):
    """The machine that has a cell, or had it last."""
    newest = max(path.glob(".lease-*"), key=lambda file: int(file.name.partition("-")[2]))
    try:
        return json.loads(newest.read_bytes())["machine"].split()[0]
    except ValueError:  # just being written
        return None


def test_lost_machines_cost_time_and_nothing_else(cluster, tmp_path):
    machines, _ = cluster
    process, workdir = study(cluster, tmp_path), tmp_path / "w"
    red = until(lambda: at_work(workdir, "red"), process, 120)
    machines["red"].signal(signal.SIGKILL)
    blue = until(lambda: at_work(workdir, "blue"), process)
    machines["head"].run("ip link set dev blue down")
    machines["blue"].signal(signal.SIGSTOP)  # nor does it reach the files
    until(lambda: owner(blue) == "head", process)
    machines["blue"].signal(signal.SIGCONT)  # back, before Ray can tell it that it was given up
    time.sleep(4)  # it sees that its cell has another owner
    machines["head"].run("ip link set dev blue up")
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 0, output
    assert owner(red) == owner(blue) == "head"
    same = load_study(str(tmp_path / "lost.py"))
    alone = executors.choose("here", replicas=1)
    conduct.conduct(same, "lost", tmp_path / "here", alone)
    lines = (workdir / "study-lost" / "study.jsonl").read_text().splitlines()
    noted = [json.loads(line) for line in lines]
    ids = [cell.config.run_id for cell in cells(same)]
    assert sorted(row["run_id"] for row in noted) == sorted(ids)
    assert {row["status"] for row in noted} == {"done"}
    for run_id in ids:
        found = rows(workdir / run_id)
        assert [row["kind"] for row in found] == ["epoch"] * EPOCHS + ["final"]
        assert found == rows(tmp_path / "here" / run_id)
