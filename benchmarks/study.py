"""A study against its runs started one by one, and what a cell costs besides its training."""

import contextlib
import dataclasses
import io
import os
import subprocess
import sys
import tempfile
import time

from benchmarks.timing import Row
from samscale.cli.studies import load_study
from samscale.config import Config
from samscale.study import cells, conduct, executors, methods, nuisance, repeated, scientific
from samscale.training import progress, run

DIGITS = "studies/digits_width.py"
CLI = "import sys; from samscale import cli; sys.exit(cli.main(['samscale', *sys.argv[1:]]))"
SEEDS, RATES = 50, (0.1, 0.2, 0.3, 0.4)


def rows():
    """Programs are compiled before, on both sides."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        found = [_one_by_one(folder), _overhead(folder)]
    yield from found


def _one_by_one(folder):
    """Of the runs through ``main.py``, one of each width and method stands for all of its kind."""
    study = load_study(DIGITS)
    kinds: dict[str, list[Config]] = {}
    for cell in cells(study):
        if cell.labels["method"] != "sgd_2x":  # which the study runs, too, as a gift
            kinds.setdefault(cell.config.program_id, []).append(cell.config)
    count = sum(map(len, kinds.values()))
    whole = min(_python("-c", CLI, "study", DIGITS, f"--workdir={folder}/{i}") for i in range(2))
    for of in kinds.values():
        _main(of[0], folder)
    alone = sum(len(of) * _main(of[-1], folder) for of in kinds.values())
    return Row(
        f"digits_width: {count} runs through main.py one by one / the study, sgd_2x included",
        alone / whole,
        f"{alone:.0f} s (one of each kind is timed) against {whole:.1f} s, report included",
        at_least=5,
    )


def _overhead(folder):
    """Runs of one step: what the study adds to each, one after another."""
    base = Config(num_neurons=(8,), num_train_steps=1, optimizer="sgd", batch_size=64)
    axes = (
        scientific("num_neurons", [(8,)]),
        methods(base, "sgd"),
        nuisance("learning_rate", RATES),
        repeated("seed", range(SEEDS)),
    )
    study = dataclasses.replace(load_study(DIGITS), base=base, axes=axes)
    configs = [cell.config for cell in cells(study)]
    run.train(configs[0], f"{folder}/first", progress.Silent())
    begin = time.perf_counter()
    for config in configs:
        run.train(config, f"{folder}/alone", progress.Silent())
    alone = time.perf_counter() - begin
    begin = time.perf_counter()
    conduct.conduct(study, "s", f"{folder}/study", executors.choose("here", replicas=1))
    whole = time.perf_counter() - begin
    return Row(
        "scheduling: milliseconds a cell beyond its run",
        1e3 * (whole - alone) / len(configs),
        f"{len(configs)} cells of one step: {whole:.2f} s against {alone:.2f} s",
        at_most=20,
    )


def _main(config, folder):
    """Seconds of one run of this kind."""
    knobs = [
        f"--config.{field.name}={getattr(config, field.name)}"
        for field in dataclasses.fields(config)
        if getattr(config, field.name) != field.default
    ]
    where = ["--config=configs/digits_mlp.py", f"--workdir={folder}/main"]
    return _python("main.py", *where, *knobs)


def _python(*words):
    """Seconds, with modules compiled before as on any second start."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    begin = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL, env=environment)
    return time.perf_counter() - begin
