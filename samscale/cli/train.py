"""``python main.py`` and ``samscale train``: one network."""

import ast
import dataclasses
import importlib.util
import pathlib
import re
import textwrap

from absl import flags
from ml_collections import ConfigDict, config_flags

from samscale.cli.words import check_workdir, fail, guarded, piped
from samscale.config import Config, from_mapping, unknown_knob
from samscale.laws import KINDS
from samscale.training.signals import stoppable

WHATEVER = (Exception, SystemExit)  # that a file of the user's may raise
# by old config files: the released program cropped and flipped these, without a knob for it
_UNSAID = {name: {"augmentation": "crop_flip"} for name in ("cifar10", "cifar100")}
USAGE = """\
Train one network.

    python main.py --workdir=DIR --config=configs/mnist_mlp.py --config.num_neurons='(1200, 400)'

The run goes into a folder of its own in DIR; the same command again goes on where it stopped.
Knobs, with the defaults that a config file begins from:
"""


def train(argv) -> int:
    """Train one network: --workdir=DIR --config=FILE [--config.KNOB=VALUE ...], or --help."""
    if any(word in ("-h", "--help", "--helpfull") for word in argv[1:]):
        with piped():
            print(USAGE + "\n".join(_knobs()))
        return 0
    return guarded(lambda: _train(argv))


def _train(argv):
    try:
        with stoppable("stopped before anything was trained"):
            config, workdir = parse(argv)
            run = _ready(config)
    except (ValueError, flags.Error) as error:
        return fail(error, 2)
    return run.train(config, workdir) and 0


def parse(argv) -> tuple[Config, str]:
    """Words of a command line -> a validated config and the work folder."""
    argv, path = _take_config(list(argv))
    if path is None:
        raise ValueError("config: must be a config file, as in --config=configs/mnist_mlp.py")
    argv = [_quoted(word) for word in _last_of_each_knob(argv)]
    config = load_config(path)
    values = _parse_flags(argv, config)
    check_workdir(values.workdir or "")
    return dataclasses.replace(values.config).validate(), values.workdir


def load_config(path: str) -> Config:
    """What ``get_config`` of a file returns: a ``Config``, or an old ``ConfigDict``.

    ``path`` may end in ``:TEXT``, which ``get_config`` is then called with.
    """
    file, _, argument = path.partition(":")
    config = call(file, "config", "get_config", *([argument] if argument else []))
    if isinstance(config, ConfigDict):
        return from_mapping(_UNSAID.get(config.get("dataset"), {}) | config.to_dict())
    if not isinstance(config, Config):
        raise ValueError(
            f"config={file!r}: get_config() must return a samscale Config or a ConfigDict, "
            f"not {type(config).__name__}"
        )
    return config


def call(file: str, field: str, function: str, *arguments):
    """What a function of a user's file returns; ``ValueError`` says what is wrong with either."""
    if not pathlib.Path(file).is_file():
        raise ValueError(f"{field}={file!r}: no such file")
    spec = importlib.util.spec_from_file_location(f"_{field}_file", file)
    if spec is None or spec.loader is None:
        raise ValueError(f"{field}={file!r}: must be a Python file, named *.py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except WHATEVER as error:
        raise ValueError(f"{field}={file!r}: {type(error).__name__}: {error}") from error
    if not callable(getattr(module, function, None)):
        raise ValueError(f"{field}={file!r}: must define {function}()")
    try:
        return getattr(module, function)(*arguments)
    except WHATEVER as error:
        raise ValueError(f"{field}={file!r}: {type(error).__name__}: {error}") from error


def _ready(config: Config):
    """Builds everything that may find the config wrong, before anything is written."""
    from samscale.training import compiled, run

    compiled.keep_programs()
    run.ready(config)
    return run


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
        field, dot, knob = name.partition(".")
        if word.startswith("-") and dot and field != "config":
            raise ValueError(f"{name}: no such flag; knobs are written --config.{knob}=VALUE")
        if word.startswith("-") and name.startswith("config."):
            if knob not in Config.__dataclass_fields__:
                raise ValueError(f"config.{unknown_knob(knob)}")
            if "=" in word:  # else the value is the next word
                _check_number(knob, word.partition("=")[2])
            last[name] = i
    skip = lambda i, word: last.get(word.partition("=")[0].lstrip("-"), i) != i and "=" in word
    return [word for i, word in enumerate(argv) if not skip(i, word)]


def _check_number(knob, text):
    """In our words: the flag library's do not say what is legal."""
    kind = Config.__dataclass_fields__[knob].type
    if kind in (int, float):
        try:
            kind(text)
        except ValueError:
            raise ValueError(f"{knob}={text!r}: must be {KINDS[kind]}") from None
    if kind == tuple[int, ...]:
        try:
            ast.literal_eval(text)
        except (ValueError, SyntaxError):
            raise ValueError(f"{knob}={text!r}: must be {KINDS[kind]}") from None
    if kind is bool and text.lower() not in ("", "true", "t", "1", "false", "f", "0"):
        raise ValueError(f"{knob}={text!r}: must be {KINDS[kind]}")


def _quoted(word):
    """Names may be written plainly: ``a,b`` for ``('a', 'b')``, as the flag library wants it."""
    flag, equals, text = word.partition("=")
    field = Config.__dataclass_fields__.get(flag.lstrip("-").removeprefix("config."))
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not equals or field is None or field.type != tuple[str, ...]:
        return word
    plain = all(re.fullmatch(r"[\w./-]+", name) for name in names)
    return f"{flag}{equals}{tuple(names)!r}" if plain else word


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
        law, meaning = field.metadata["law"].words, field.metadata["meaning"]
        words = meaning + (f" ({law})" if law != "anything" else "")
        if table := re.search(r"a key of ([\w.]+)\.(\w+)", meaning):
            module = importlib.import_module(f"samscale.{table[1]}")
            words += "; one of " + ", ".join(sorted(getattr(module, table[2])))
        start = f"  --config.{field.name}={field.default!r}\n"
        yield start + textwrap.fill(words, 79, initial_indent=8 * " ", subsequent_indent=8 * " ")
