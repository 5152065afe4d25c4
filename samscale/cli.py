"""The command line: ``python main.py`` and ``samscale``. Parses, calls, and words errors.

Exit codes: 0 done, 1 failed (diverged, disk), 2 wrong input, 130 / 143 stopped by a signal.
"""

import dataclasses
import importlib.util
import os
import pathlib
import sys

from absl import flags
from ml_collections import ConfigDict, config_flags

from samscale import __version__
from samscale.config import Config, from_mapping, unknown_knob
from samscale.errors import Diverged, Interrupted

USAGE = """\
Train one network.

    python main.py --workdir=DIR --config=configs/mnist_mlp.py --config.num_neurons='(1200, 400)'

The run goes into a folder of its own in DIR; the same command again goes on where it stopped.
Knobs, with the defaults that a config file begins from:
"""


def main(argv=None) -> int:
    """``samscale COMMAND ...``"""
    argv = sys.argv if argv is None else argv
    commands = {"train": train, "demo": demo, "doctor": doctor}
    if len(argv) > 1 and argv[1] in commands:
        return commands[argv[1]](argv[1:])
    if len(argv) > 1 and argv[1] == "--version":
        print(f"samscale {__version__}")
        return 0
    asked = len(argv) > 1 and argv[1] in ("-h", "--help", "help")
    lines = [f"  samscale {name:8}{f.__doc__.splitlines()[0]}" for name, f in commands.items()]
    print("\n".join(lines), file=sys.stdout if asked else sys.stderr)
    return 0 if asked else 2


def train(argv) -> int:
    """Train one network: --workdir=DIR --config=FILE [--config.KNOB=VALUE ...], or --help."""
    if any(word in ("-h", "--help", "--helpfull") for word in argv[1:]):
        print(USAGE + "\n".join(_knobs()))
        return 0
    try:
        config, workdir = parse(argv)
        run = _ready(config)
    except (ValueError, flags.Error) as error:
        return _fail(error, 2)
    except OSError as error:
        return _fail(_words(error), 1)
    return _guarded(lambda: run.train(config, workdir))


def demo(argv) -> int:
    """SGD and SAM on handwritten digits at three widths, in about a minute: [--workdir=DIR]"""
    from samscale import demo

    try:
        workdir = _parse_flags(argv).workdir or "runs/demo"
    except flags.Error as error:
        return _fail(error, 2)
    enable_compilation_cache()
    return _guarded(lambda: demo.main(workdir))


def doctor(argv) -> int:
    """Print versions, devices, where data are looked for: what a bug report needs."""
    del argv
    from samscale.data import fetch
    from samscale.training import folder

    for name, value in folder.environment().items():
        print(f"{name}: {value}")
    print(f"data: {', '.join(map(str, fetch.folders('NAME')))}")
    return 0


def parse(argv) -> tuple[Config, str]:
    """Words of a command line -> a validated config and the work folder."""
    argv, path = _take_config(list(argv))
    if path is None:
        raise ValueError("config: must be a config file, as in --config=configs/mnist_mlp.py")
    argv = _last_of_each_knob(argv)
    config = load_config(path)
    values = _parse_flags(argv, config)
    if not values.workdir:
        raise ValueError("workdir: must be a folder for the runs, as in --workdir=runs")
    return dataclasses.replace(values.config).validate(), values.workdir


def load_config(path: str) -> Config:
    """What ``get_config`` of a file returns: a ``Config``, or an old ``ConfigDict``.

    ``path`` may end in ``:TEXT``, which ``get_config`` is then called with.
    """
    file, _, argument = path.partition(":")
    if not pathlib.Path(file).is_file():
        raise ValueError(f"config={file!r}: no such file")
    spec = importlib.util.spec_from_file_location("_config_file", file)
    if spec is None or spec.loader is None:
        raise ValueError(f"config={file!r}: must be a Python file, named *.py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = module.get_config(*([argument] if argument else []))
    except Exception as error:  # whatever a file of the user's may raise
        raise ValueError(f"config={file!r}: {type(error).__name__}: {error}") from error
    if isinstance(config, ConfigDict):
        return from_mapping(config.to_dict())
    if not isinstance(config, Config):
        raise ValueError(
            f"config={file!r}: get_config() must return a samscale Config or a ConfigDict, "
            f"not {type(config).__name__}"
        )
    return config


def enable_compilation_cache() -> None:
    """Keep compiled programs on disk, unless ``JAX_COMPILATION_CACHE_DIR`` says where."""
    import jax

    if jax.config.jax_compilation_cache_dir is None:
        cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        jax.config.update("jax_compilation_cache_dir", str(cache / "samscale" / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # small nets too
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _ready(config: Config):
    """Builds everything that may find the config wrong, before anything is written."""
    enable_compilation_cache()
    from samscale.training import run

    run.ready(config)
    return run


def _guarded(action) -> int:
    """The exit code of an action; what may happen to it becomes one sentence."""
    try:
        action()
    except Diverged as error:
        return _fail(error, 1)
    except Interrupted as error:
        return _fail(error, 128 + error.signum)
    except OSError as error:
        return _fail(_words(error), 1)
    except KeyboardInterrupt:
        return _fail("stopped before there was anything to save", 130)
    return 0


def _words(error: OSError):
    return f"{error.filename}: {error.strerror}" if error.filename else (error.strerror or error)


def _parse_flags(argv, config: Config | None = None):
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "A folder for the runs.", flag_values=values)
    if config is not None:
        config_flags.DEFINE_config_dataclass(
            "config", config, flag_values=values, sys_argv=list(argv)
        )
    rest = values(list(argv))[1:]
    if rest:
        raise flags.Error(f"{rest[0]!r}: unexpected; a flag is written --name=value")
    return values


def _last_of_each_knob(argv):
    """Said twice, the last word counts: the flag library would append tuples to each other."""
    last = {}
    for i, word in enumerate(argv):
        name = word.partition("=")[0].lstrip("-")
        if word.startswith("-") and name.startswith("config."):
            if name.removeprefix("config.") not in Config.__dataclass_fields__:
                raise ValueError(f"config.{unknown_knob(name.removeprefix('config.'))}")
            last[name] = i
    skip = lambda i, word: last.get(word.partition("=")[0].lstrip("-"), i) != i and "=" in word
    return [word for i, word in enumerate(argv) if not skip(i, word)]


def _take_config(argv):
    """The words without ``--config=PATH`` (or ``--config PATH``), and PATH."""
    for i, word in enumerate(argv):
        name, equals, path = word.lstrip("-").partition("=")
        if word.startswith("-") and name == "config":
            if equals:
                return argv[:i] + argv[i + 1 :], path
            return argv[:i] + argv[i + 2 :], argv[i + 1] if i + 1 < len(argv) else None
    return argv, None


def _knobs():
    for field in dataclasses.fields(Config):
        law = field.metadata["law"].words
        yield f"  --config.{field.name}={field.default!r}\n        {field.metadata['meaning']}" + (
            f" ({law})" if law != "anything" else ""
        )


def _fail(error, code: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return code
