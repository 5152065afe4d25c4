"""``samscale doctor``: what a bug report needs, and what to do about what is missing."""

import importlib.util
import os
import pathlib
import shutil
import sys
from collections.abc import Iterator

from samscale.cli.words import parser_of
from samscale.named import says

OK = "ok"
EXTRAS = {  # of pyproject.toml -> the packages that it installs, by the names they are imported by
    "parquet": ("pyarrow",),
    "peers": ("torch", "pytorch_optimizer", "curvlinops", "pyhessian"),
    "ray": ("ray",),
    "slurm": ("submitit",),
    "track": ("tensorboardX", "wandb", "mlflow"),
}


@says("Print versions, devices, folders, data and extras: what works, and what to do.")
def doctor(argv) -> int:
    parser_of(doctor).parse_args(argv[1:])
    for name, value in _lines():
        print(f"{name}: {value}")
    return 0


def _lines() -> Iterator[tuple[str, str]]:
    from samscale.training import environment

    found = environment.environment()
    for name, version in found["versions"].items():
        yield name, version or "not installed"
    yield "commit", found["commit"] or "unknown: this package is part of no repository"
    yield "python", f"{found['python']}, {sys.executable}"
    yield "platform", f"{found['platform']}, {found['processor']}, {os.cpu_count()} cores"
    yield "devices", ", ".join(found["devices"])
    for name, value in found["settings"].items():
        yield name, str(value)
    yield "XLA_FLAGS", found["flags"] or "none"
    yield from _folders()
    yield from _data()
    for extra, packages in EXTRAS.items():
        yield f"extra {extra}", _extra(extra, packages)
    queue = shutil.which("sbatch")
    yield "Slurm", OK if queue else "no sbatch here: --executor=slurm runs where there is one"


def _folders():
    from samscale import cached
    from samscale.training import compiled, kept

    yield "cache", f"{cached.root()}: {_writable(cached.root())}"
    compiled.keep_programs()
    programs = kept.place()
    yield "compiled programs", f"{programs}: {_writable(programs)}" if programs else "not kept"
    mine = os.environ.get("SAMSCALE_DATA")
    yield "SAMSCALE_DATA", mine or "not set: data are looked for in the cache alone"


def _writable(folder) -> str:
    """Of a folder that need not be there yet."""
    there = next(p for p in (folder, *pathlib.Path(folder).absolute().parents) if p.exists())
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return OK
    return f"{there} cannot be written; set XDG_CACHE_HOME to a folder of yours"


def _data():
    from samscale.data import fetch, sources

    for name, complete in sources.COMPLETE.items():
        if place := fetch.held(name, complete):
            words = f"{OK}, in {place}"
        else:
            looked = " or ".join(map(str, fetch.folders(name)))
            words = f"not in {looked}; the first run that asks downloads it"
        yield f"data {name}", words


def _extra(extra, packages) -> str:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if not missing:
        return OK
    return f"lacks {', '.join(missing)}: pip install 'samscale[{extra}]'"
