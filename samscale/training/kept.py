"""Programs that outlive the process: a second start neither traces, lowers nor compiles them.

XLA keeps machine code under a hash of the lowered program, so every start would still trace and
lower in Python, which takes longer than twenty epochs of a small network. Here a *name*, a hash of
all that a program is made from, leads to a *content*, the hash of the lowered program, and that to
the machine code. What a program is made from: the config, the shapes of the data, the sources of
this package, versions, settings, the shapes of the arguments. Programs that turn out the same share
one content, so that edited sources or other knobs need not compile again. They are pickles of
machine code: ``cached`` says whose files are trusted.
"""

import contextlib
import functools
import hashlib
import os
import pathlib
import pickle
import platform
import zlib
from collections.abc import Callable

import jax
from jax.experimental import serialize_executable
from jax.experimental.compilation_cache import compilation_cache

import samscale
from samscale import cached, data, models
from samscale.config import Config
from samscale.tasks import Task
from samscale.training import memory
from samscale.training.environment import versions


class Kept:
    """``function`` of trees of arrays, compiled once for arguments of one structure and shapes.

    ``name``: what it is kept under; None: in this process only. ``donate``: the positions of
    arguments that results may overwrite. ``memory``: bytes that the program compiled last needs,
    arguments included; more than there are raise ``MemoryError`` before it runs, for XLA on a CPU
    would wait for ever. Cost of a call beyond its program: some microseconds a leaf.
    """

    def __init__(self, function: Callable, name: str | None, donate: tuple[int, ...] = ()):
        self.jitted = jax.jit(function, donate_argnums=donate)
        self.memory = 0
        self._name = name
        self._programs: dict = {}

    def __call__(self, *args):
        if jax.config.jax_disable_jit:  # for debugging: operation by operation
            return self.jitted(*args)
        leaves, structure = jax.tree.flatten(args)
        form = structure, *map(jax.typeof, leaves)
        if form not in self._programs:
            self._programs[form] = self._program(args, form)
        return self._programs[form](*args)

    def _program(self, args, form):
        folder = place()
        if folder is None or self._name is None:
            program = self.jitted.lower(*args).compile()
        else:
            named = folder / f"{_digest(self._name, _sources(), _setting(), *form)}.name"
            program = _named(named) or self._made(args, named)
        if (m := program.memory_analysis()) is not None:
            new = m.output_size_in_bytes - m.alias_size_in_bytes
            self.memory = m.argument_size_in_bytes + m.temp_size_in_bytes + new
            memory.check(self.memory)
        return program

    def _made(self, args, named):
        lowered = self.jitted.lower(*args)
        trees = lowered.in_tree, lowered.out_tree, lowered.args_info
        content = named.with_name(_digest(lowered.as_text(), *trees, _setting()))
        program = _read(content)
        if program is None:
            with _without_the_cache_of_xla():
                program = lowered.compile()
            if (serialized := _serialized(program)) is not None:
                cached.write(content, serialized)
        cached.write(named, content.name.encode())
        return program


def place() -> pathlib.Path | None:
    """Where programs are kept: beside XLA's, if those are, in a folder of this machine."""
    cache = jax.config.jax_compilation_cache_dir
    wanted = cache and "://" not in cache and jax.config.jax_enable_compilation_cache
    return pathlib.Path(cache) / "whole" if wanted else None


def name(config: Config, task: Task, function: str) -> str | None:
    """Of a function of a config's program; None where something of the user's own is part of it,
    whose sources are not known here."""
    makers = data.DATASETS.get(config.dataset), models.MODELS.get(config.model)
    ours = all(getattr(m, "__module__", "samscale").startswith("samscale") for m in makers)
    if config.task or not ours:
        return None
    splits = task.train, task.validation, task.test
    shapes = [(k, a.shape, str(a.dtype)) for split in splits for k, a in sorted(split.items())]
    return f"{config.program_id} {shapes} {function}"


def once(name: str | None, check: Callable) -> None:
    """``check()``, unless what is kept says that it has passed under this name before."""
    folder = place()
    passed = folder and name and folder / f"{_digest(name, _sources(), _setting())}.passed"
    if not passed:
        check()
    elif cached.read(passed) is None:
        check()
        cached.write(passed, b"")


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


def _named(path):
    with contextlib.suppress(ValueError):  # no name, though its digest is right
        if (content := cached.read(path)) is not None:
            return _read(path.with_name(content.decode()))
    return None


def _read(path):
    """None where there is no such program, or none that can be loaded here."""
    if (content := cached.read(path)) is None:
        return None
    with contextlib.suppress(Exception):
        program = pickle.loads(zlib.decompress(content))
        devices = jax.local_devices()[:1]
        return serialize_executable.deserialize_and_load(*program, execution_devices=devices)
    return None


def _serialized(program) -> bytes | None:
    """Before its first call: XLA's condition. None where it cannot be."""
    with contextlib.suppress(ValueError, NotImplementedError, jax.errors.JaxRuntimeError):
        return zlib.compress(pickle.dumps(serialize_executable.serialize(program)), 1)
    return None


def _digest(*parts) -> str:
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()


def _setting() -> str:
    """All but the program that machine code depends on."""
    # as attributes they follow context managers; a few are none
    settings = {n: getattr(jax.config, n, v) for n, v in sorted(jax.config.values.items())}
    device = jax.local_devices()[0]
    backend = f"{device.platform} {device.device_kind} {device.client.platform_version}"
    return f"{versions()} {backend} {_processor()} {os.environ.get('XLA_FLAGS')} {settings}"


@functools.cache
def _sources() -> str:
    digest = hashlib.sha256()
    for path in sorted(pathlib.Path(samscale.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@functools.cache
def _processor() -> str:
    """Another of the same name may lack an instruction; work is cut for so many cores."""
    able = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))
    found = f"{platform.machine()} {platform.processor()} {len(able(0))}"
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
        found += next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return found
