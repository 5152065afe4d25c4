"""Programs that outlive the process: a second start neither traces, lowers nor compiles them.

XLA keeps machine code under a hash of the lowered program, so every start would still trace and
lower in Python, which takes longer than twenty epochs of a small network. Here it is kept
under a hash of all that it is made from: the config, the sources of this package, the
versions of its libraries, the settings of JAX and XLA, the device, the shapes of the arguments.
"""

import contextlib
import functools
import hashlib
import os
import pathlib
import pickle
import platform
import tempfile
from collections.abc import Callable

import jax
from jax.experimental import serialize_executable
from jax.experimental.compilation_cache import compilation_cache

import samscale
from samscale.config import Config
from samscale.training.folder import versions


class Kept:
    """``function`` of trees of arrays, compiled once for arguments of one structure and shapes.

    ``name``: what it is kept under; None: in this process only. ``donate``: the positions of
    arguments that results may overwrite. ``memory``: bytes that the program compiled last needs,
    arguments included. Cost of a call beyond its program: some microseconds a leaf.
    """

    def __init__(self, function: Callable, name: str | None, donate: tuple[int, ...] = ()):
        self.jitted = jax.jit(function, donate_argnums=donate)
        self.memory = 0
        self._name = name
        self._programs: dict = {}

    def __call__(self, *args):
        leaves, structure = jax.tree.flatten(args)
        form = structure, *map(jax.typeof, leaves)
        if form not in self._programs:
            self._programs[form] = self._program(args, form)
        return self._programs[form](*args)

    def _program(self, args, form):
        path = self._path(form)
        program = None if path is None else _read(path)
        if program is None:
            lowered = self.jitted.lower(*args)
            if path is None:
                program = lowered.compile()
            else:
                with _without_the_cache_of_xla():
                    program = lowered.compile()
                _write(path, program)
        if (m := program.memory_analysis()) is not None:
            new = m.output_size_in_bytes - m.alias_size_in_bytes
            self.memory = m.argument_size_in_bytes + m.temp_size_in_bytes + new
        return program

    def _path(self, form):
        folder = place()
        if folder is None or self._name is None:
            return None
        made_from = self._name, _surroundings(), *map(str, form)
        return folder / hashlib.sha256("\n".join(made_from).encode()).hexdigest()


def place() -> pathlib.Path | None:
    """Where programs are kept: beside XLA's, if those are."""
    cache = jax.config.jax_compilation_cache_dir
    return pathlib.Path(cache) / "whole" if cache else None


def name(config: Config, function: str) -> str | None:
    """Of a function of a config's program; None where a task of the user's own is part of it."""
    return None if config.task else f"{config.program_id} {function}"


@contextlib.contextmanager
def _without_the_cache_of_xla():
    """What comes from there cannot be serialized again: it would lack functions, unnoticed."""
    was = jax.config.jax_enable_compilation_cache
    try:
        jax.config.update("jax_enable_compilation_cache", False)
        compilation_cache.reset_cache()  # else it goes by what it was when first asked
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", was)
        compilation_cache.reset_cache()


def _read(path):
    """None where there is no such program, or none that can be loaded here."""
    with contextlib.suppress(Exception):
        content = pickle.loads(path.read_bytes())
        devices = jax.local_devices()[:1]
        return serialize_executable.deserialize_and_load(*content, execution_devices=devices)
    return None


def _write(path, program):
    """Whole or not at all, whoever else writes the same. Before the first call: XLA's condition."""
    with contextlib.suppress(OSError, ValueError, NotImplementedError, jax.errors.JaxRuntimeError):
        content = pickle.dumps(serialize_executable.serialize(program))
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as own:
            (whole := pathlib.Path(own) / path.name).write_bytes(content)
            os.replace(whole, path)


def _surroundings() -> str:
    # as attributes they follow context managers; a few are none
    settings = {n: getattr(jax.config, n, v) for n, v in sorted(jax.config.values.items())}
    device = jax.local_devices()[0]
    machine = f"{device.platform} {device.device_kind} {_processor()}"
    return f"{_sources()} {versions()} {machine} {os.environ.get('XLA_FLAGS')} {settings}"


@functools.cache
def _sources() -> str:
    digest = hashlib.sha256()
    for path in sorted(pathlib.Path(samscale.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@functools.cache
def _processor() -> str:
    """What machine code for a CPU depends on: another of the same name may lack an instruction."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
        return next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return f"{platform.machine()} {platform.processor()}"
