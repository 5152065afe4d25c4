"""A report of many finished runs: the whole command, from its start to ``report.html``."""

import dataclasses
import os
import pathlib
import random
import subprocess
import sys
import tempfile

from benchmarks.timing import Row
from samscale.config import Config
from samscale.study import (
    Study,
    cells,
    methods,
    nuisance,
    repeated,
    scientific,
    store,
)
from samscale.training import files, folder, record

EPOCHS, STEPS, ROUNDS = 20, 100, 3
SIZES = [(16 * k, 8 * k) for k in range(1, 11)]
RADII = [0.01, 0.02, 0.03, 0.05, 0.1, 0.15, 0.2, 0.3]
MOST_SECONDS = {1_000: 5, 10_000: 30}

# a parent of its own: a process counts as at least as large as the one that started it
MEASURE = """\
import resource, subprocess, sys, time
start = time.perf_counter()
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
seconds, used = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
print(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
"""


def rows():
    peaks = {}
    for count, aim in MOST_SECONDS.items():
        with tempfile.TemporaryDirectory() as workdir:
            write(workdir, count)
            seconds, busy, memory = zip(*(_report(workdir) for _ in range(ROUNDS)), strict=True)
        peaks[count] = max(memory)
        yield Row(
            f"samscale report, {count:,} runs, seconds",
            min(seconds),
            f"{ROUNDS} times, the slowest {max(seconds):.2f} s; {min(busy):.2f} s of processors; "
            f"peak memory {peaks[count]:.0f} MiB",
            at_most=aim,
        )
    few, many = peaks.values()
    yield Row(
        "samscale report, 10,000 runs: peak memory / that of 1,000 runs",
        many / few,
        f"{many:.0f} MiB against {few:.0f} MiB",
        at_most=1.5,
    )


def write(workdir, count):
    """A study of ``count`` finished runs: ten sizes, ten arms; 1,000 of one panel, or of five."""
    base = Config(num_epochs=EPOCHS)
    panels = [0.0] if count <= 1_000 else [0.0, 0.1, 0.2, 0.4, 0.6]
    seeds = count // (len(panels) * len(SIZES) * (2 + len(RADII)))
    study = Study(
        question="Does the report keep up?",
        base=base,
        axes=(
            scientific("num_neurons", SIZES),
            methods(base, "sgd", "sgd_2x", "sam"),
            *([scientific("label_noise", panels)] if len(panels) > 1 else []),
            nuisance("rho", RADII, only=["sam"]),
            repeated("seed", range(seeds)),
        ),
    )
    store.save(workdir, "many", study, ["samscale", "study", "many.py"])
    luck = random.Random(0)
    for cell in cells(study):
        _write_run(pathlib.Path(workdir) / cell.config.run_id, cell.config, luck)


def _write_run(path, config, luck):
    path.mkdir()
    files.write_json(path / folder.CONFIG, dataclasses.asdict(config))
    lines = [{"kind": "epoch", **_epoch(config, epoch, luck)} for epoch in range(1, EPOCHS + 1)]
    inputs, (first, second) = 64, config.num_neurons
    parameters = (inputs + 1) * first + (first + 1) * second + (second + 1) * 10
    lines.append({**lines[-1], "kind": "final", "num_params": parameters, "sparsity": 0.0})
    written = record.Record(path)
    for line in lines:
        written.write(line)
    written.close()
    record.finish(path, lines[-1]["step"], written.check)


def _epoch(config, epoch, luck):
    loss = luck.uniform(0.9, 1.1) / epoch
    accuracy = 1 - 0.1 * loss
    row = {"step": STEPS * epoch, "epoch": epoch, "gap": 0.1 * loss * (config.optimizer == "sam")}
    for part in ("train", "validation", "test"):
        row[f"{part}_accuracy"] = accuracy + luck.gauss(0, 0.01)
        row[f"{part}_loss"] = loss + luck.gauss(0, 0.01)
    return row | {"seconds": 0.0157, "examples_per_second": 69091.4}


def _report(workdir):
    """Seconds, those of processors, and peak MiB of the command, with modules compiled before."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    command = [str(pathlib.Path(sys.executable).with_name("samscale")), "report", workdir]
    output = subprocess.run(
        [sys.executable, "-c", MEASURE, *command],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    ).stdout
    return tuple(map(float, output.split()))
