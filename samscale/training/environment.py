"""What a run's numbers depend on besides its config: ``environment.json`` in its folder.

Of JAX's settings, some change random bits or the precision of numbers. A run that was begun under
one of them does not go on under another. What else differs (versions, devices, flags) may change
the order of sums: that is said, and both environments stay in the file.
"""

import datetime
import functools
import os
import pathlib
import platform
import subprocess
import sys
from importlib import metadata
from typing import Any

import samscale

NAME = "environment.json"
EARLIER = "earlier"  # in the file: environments that the run was trained under before
BINDING = (  # settings that change random bits or precision
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_random_seed_offset",
    "jax_high_dynamic_range_gumbel",
    "jax_enable_x64",
    "jax_default_matmul_precision",
)
LOOSE = (  # those that may change the order of sums, or only what is legal
    "jax_numpy_dtype_promotion",
    "jax_disable_jit",
    "jax_disable_most_optimizations",
    "jax_optimization_level",
)
PASSING = ("time", "command", EARLIER)  # what says nothing about numbers
_PACKAGES = ["samscale", "jax", "jaxlib", "flax", "optax", "numpy", "scipy", "pandas", "altair"]


def environment() -> dict[str, Any]:
    """Of this process, as it is now."""
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "commit": commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "devices": devices(),
        "flags": os.environ.get("XLA_FLAGS", ""),
        "settings": settings(),
        "versions": versions(),
    }


def settings() -> dict[str, Any]:
    """Setting of JAX -> its value, such as JSON holds, inside of context managers, too."""
    import jax  # here: whoever only reads folders does without

    found = {name: getattr(jax.config, name, None) for name in (*BINDING, *LOOSE)}
    plain = (bool, int, float, str, type(None))
    return {k: v if isinstance(v, plain) else getattr(v, "value", str(v)) for k, v in found.items()}


def devices() -> list[str]:
    """Those that a run uses: where arrays lie unless told otherwise."""
    import jax

    used = jax.device_put(0.0).devices()
    return [f"{device.platform}: {device.device_kind}" for device in used]


@functools.cache
def versions() -> dict[str, str]:
    """Of this package and of the libraries that make its numbers; None where one is unknown."""
    found = {name: _version(name) for name in _PACKAGES}
    return found | {"samscale": samscale.__version__}  # it need not be installed to be run


def _version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


@functools.cache  # a study asks for every run
def commit() -> str | None:
    """Of the repository that this package is part of; None where it is part of none, as when it is
    installed in a folder within a repository of something else."""
    if _git("ls-files", "--error-unmatch", pathlib.Path(samscale.__file__).name) is None:
        return None
    return _git("describe", "--always", "--dirty")


def _git(*words):
    """What git prints, asked in the package's folder; None where it fails."""
    folder = pathlib.Path(samscale.__file__).resolve().parent
    # hooks of git name their own repository in the environment, which is not ours
    free = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(folder), *words]
    try:
        done = subprocess.run(command, capture_output=True, check=True, text=True, env=free)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def check(where, before: Any, now: dict[str, Any]) -> str:
    """A sentence about what differs and may change last bits; empty where nothing does.

    ``before``: the environment of a run that is to go on. Raises ``ValueError`` where one of
    ``BINDING`` differs, naming ``where``, the setting and both values.
    """
    if not _knows_settings(before):
        return ""  # of an earlier version, which did not write them down
    if name := binding(before, now):
        was = before["settings"][name]
        back = f"unset {name.upper()}" if was is None else f"set {name.upper()}={was}"
        is_now = now["settings"][name]
        raise ValueError(
            f"{name}={is_now!r}: must be {was!r}, as when {where} was begun; {back}, "
            "or begin again with --config.restore_checkpoint=False or in another workdir"
        )
    was, now = _flat(before), _flat(now)
    value = lambda of, name: of.get(name) or "none"
    changes = [f"{n} was {value(was, n)}, is {value(now, n)}" for n in _differing(was, now)]
    return f"another environment, so last bits may differ: {'; '.join(changes)}" if changes else ""


def binding(before: Any, now: dict[str, Any]) -> str | None:
    """The name of a setting in which environments differ so that random bits or precision do."""
    if not _knows_settings(before):
        return None
    was, now = before["settings"], now["settings"]
    return next((name for name in BINDING if name in was and was[name] != now[name]), None)


def _knows_settings(before):
    return isinstance(before, dict) and isinstance(before.get("settings"), dict)


def merged(before: Any, now: dict[str, Any]) -> dict[str, Any]:
    """``now`` with the environments before it that differ from it, oldest first."""
    if not isinstance(before, dict):
        return now
    last = {name: value for name, value in before.items() if name != EARLIER}
    earlier = before.get(EARLIER) if isinstance(before.get(EARLIER), list) else []
    if _differing(_flat(last), _flat(now)):
        earlier = [*earlier, last]
    return now | ({EARLIER: earlier} if earlier else {})


def _differing(before, now):
    return [name for name in {**before, **now} if before.get(name) != now.get(name)]


def _flat(environment):
    """Name -> value of all that a number may depend on."""
    flat: dict[str, Any] = {}
    for name, value in environment.items():
        if name not in PASSING:
            flat |= value if isinstance(value, dict) else {name: value}
    return flat
