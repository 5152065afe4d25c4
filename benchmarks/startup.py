"""From the command to the last line, with programs compiled before."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from benchmarks.timing import Row, best

LIBRARIES = "import jax, flax.linen, optax"


def rows():
    seconds = best(
        {
            "libraries": lambda: _python("-c", LIBRARIES),
            "with samscale": lambda: _python("-c", f"{LIBRARIES}, samscale"),
        },
        rounds=5,
    )
    yield Row(
        "import samscale, seconds beyond those of jax, flax.linen, optax",
        seconds["with samscale"] - seconds["libraries"],
        f"{seconds['with samscale']:.2f} s against {seconds['libraries']:.2f} s",
        at_most=0.3,
    )
    with tempfile.TemporaryDirectory() as folder:
        _train(folder, 0)  # fills the compilation cache
        whole, epochs = min(_train(folder, seed) for seed in range(1, 6))
        yield Row(
            "digits_mlp, 20 epochs: whole command / (its epochs + the libraries' import)",
            whole / (epochs + seconds["libraries"]),
            f"{whole:.2f} s against {epochs:.2f} + {seconds['libraries']:.2f} s",
            at_most=1.5,
        )
        _train(folder, 6, "--config.num_train_steps=1")
        first, _ = min(_train(folder, s, "--config.num_train_steps=1") for s in (7, 8, 9))
        yield Row("main.py, seconds to its first and only step", first, "digits_mlp", at_most=10)


def _train(folder, seed, *knobs):
    """Seconds of the whole command, and of its epochs as it reports them."""
    start = time.perf_counter()
    where = ["--config=configs/digits_mlp.py", f"--workdir={folder}", f"--config.seed={seed}"]
    _python("main.py", *where, *knobs)
    whole = time.perf_counter() - start
    newest = max(pathlib.Path(folder).glob("*/metrics.jsonl"), key=lambda p: p.stat().st_mtime)
    return whole, json.loads(newest.read_text().splitlines()[-1])["seconds"]


def _python(*words):
    """With modules compiled before, as on any second start: else the libraries' import is slow."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL, env=environment)
