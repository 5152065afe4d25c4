"""``python main.py`` and ``samscale train``: one network."""

import ast
import dataclasses
import importlib.util
import pathlib
import re
import textwrap
import traceback
import typing

from ml_collections import ConfigDict

from samscale import named, shipped
from samscale.cli.streams import readable
from samscale.cli.words import check_workdir, expanded, fail, guarded
from samscale.config import Config, from_mapping, unknown_knob
from samscale.laws import KINDS, said
from samscale.named import says
from samscale.training.signals import stoppable

WHATEVER = (Exception, SystemExit)  # that a file of the user's may raise
# by old config files: the released program cropped and flipped these, without a knob for it
_UNSAID = {name: {"augmentation": "crop_flip"} for name in ("cifar10", "cifar100")}
SWITCHES = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
USAGE = """\
Train one network.

    python main.py --workdir=DIR --config=configs/mnist_mlp.py --config.num_neurons='(1200, 400)'

The run goes into a folder of its own in DIR; the same command again goes on where it stopped.
Knobs, with the defaults that a config file begins from:
"""


@says("Train one network: --workdir=DIR --config=FILE [--config.KNOB=VALUE ...], or --help.")
def train(argv) -> int:
    with readable():
        if any(word in ("-h", "--help", "--helpfull") for word in argv[1:]):
            print(USAGE + "\n".join(_knobs()))
            return 0
        return guarded(lambda: _train(argv))


def _train(argv):
    try:
        with stoppable("stopped before anything was trained"):
            config, workdir = parse(argv)
            run = _ready(config, workdir)
    except ValueError as error:
        return fail(error, 2)
    return run.train(config, workdir) and 0


def parse(argv) -> tuple[Config, str]:
    """Words of a command line -> a validated config and the work folder.

    A flag is written ``--name=value`` or ``--name value``; of one said twice the last counts.
    """
    flags = _flags(list(argv)[1:])
    if "config" not in flags:
        raise ValueError("config: must be a config file, as in --config=configs/mnist_mlp.py")
    config = load_config(expanded(flags.pop("config")))
    workdir = expanded(flags.pop("workdir", ""))
    check_workdir(workdir)
    knobs = {name.removeprefix("config."): text for name, text in flags.items()}
    values = {knob: _value(knob, text) for knob, text in knobs.items()}
    return dataclasses.replace(config, **values).validate(), workdir


def load_config(path: str) -> Config:
    """What ``get_config`` of a file returns: a ``Config``, or an old ``ConfigDict``.

    ``path`` may end in ``:TEXT``, which ``get_config`` is then called with.
    """
    file, argument = _file_and_argument(path)
    config = call(file, "config", "get_config", *([argument] if argument else []))
    if isinstance(config, ConfigDict):
        return from_mapping(_UNSAID.get(config.get("dataset"), {}) | config.to_dict())
    if not isinstance(config, Config):
        raise ValueError(
            f"config={file!r}: get_config() must return a samscale Config or a ConfigDict, "
            f"not {type(config).__name__}"
        )
    return config


def _file_and_argument(path):
    """Of ``FILE`` or ``FILE:TEXT``: the shortest FILE that is there, for names may hold colons."""
    parts = path.split(":")
    files = [":".join(parts[: i + 1]) for i in range(len(parts))]
    scripts = [file for file in files if file.endswith(".py")] or [path]
    file = next((file for file in scripts if pathlib.Path(file).is_file()), scripts[0])
    return file, path[len(file) + 1 :]


def call(file: str, field: str, function: str, *arguments):
    """What a function of a user's file returns; ``ValueError`` says what is wrong with either."""
    spec = importlib.util.spec_from_file_location(f"_{field}_file", shipped.find(field, file))
    if spec is None or spec.loader is None:
        raise ValueError(f"{field}={file!r}: must be a Python file, named *.py")
    module = importlib.util.module_from_spec(spec)
    named.look_beside(file)
    try:
        spec.loader.exec_module(module)
    except WHATEVER as error:
        raise ValueError(_fault(field, file, error)) from error
    if not callable(getattr(module, function, None)):
        raise ValueError(f"{field}={file!r}: must define {function}()")
    try:
        return getattr(module, function)(*arguments)
    except WHATEVER as error:
        raise ValueError(_fault(field, file, error)) from error


def _fault(field, file, error):
    """What a user's file raised and at which of its lines, in one sentence."""
    here = pathlib.Path(file).resolve()
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if pathlib.Path(frame.filename).resolve() == here]
    if isinstance(error, SyntaxError) and pathlib.Path(error.filename or "").resolve() == here:
        lines.append(error.lineno)
    where = f" (line {lines[-1]})" if lines else ""
    words = " ".join(f"{type(error).__name__}: {error}".split())
    if unknown := re.search(r"Config.*unexpected keyword argument '(\w+)'", words):
        words = unknown_knob(unknown[1])
    return f"{field}={file!r}: {words}{where}"


def _ready(config: Config, workdir):
    """Builds everything that may find the config wrong, before anything is written."""
    from samscale.training import compiled, folder, run

    compiled.keep_programs()
    run.ready(config)
    folder.check_environment(config, workdir)
    return run


def _flags(words: list[str]) -> dict[str, str]:
    """The text that is said of each flag: ``workdir``, ``config``, ``config.KNOB``."""
    found: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        name, equals, text = word.lstrip("-").partition("=")
        if not word.startswith("-"):
            raise ValueError(f"{word!r}: unexpected; a flag is written --name=value")
        kind = _kind(name)
        if not equals:  # a switch is on; of others the value is the next word
            text = "True" if kind is bool else next(rest, None)
        if text is None:
            raise ValueError(f"{name}: must have a value, as in --{name}=VALUE")
        if name == "config" and name in found:
            raise ValueError(f"config={text!r}: must be one file; {found[name]!r} is named, too")
        found[name] = text
    return found


def _kind(name):
    """The type of a flag's value. Raises ``ValueError`` where there is no such flag."""
    field, dot, knob = name.partition(".")
    if field != "config" and dot:
        raise ValueError(f"{name}: no such flag; knobs are written --config.{knob}=VALUE")
    if not dot and name not in ("config", "workdir"):
        raise ValueError(f"{name}: no such flag; there are --workdir, --config and --config.KNOB")
    if dot and knob not in Config.__dataclass_fields__:
        raise ValueError(f"config.{unknown_knob(knob)}")
    return Config.__dataclass_fields__[knob].type if dot else str


def _value(knob, text):
    """The value of a knob that a word stands for; whether it is legal the config says."""
    kind = _kind(f"config.{knob}")
    try:
        if kind is bool:
            return SWITCHES[text.lower()]
        if not typing.get_args(kind):
            return kind(text)
        names = [name.strip() for name in text.split(",") if name.strip()]
        if kind == tuple[str, ...] and all(re.fullmatch(r"[\w./-]+", name) for name in names):
            return tuple(names)  # written plainly: a,b for ('a', 'b')
        found = ast.literal_eval(text)
        return (found,) if isinstance(found, int | str) else found
    except (ValueError, KeyError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise ValueError(f"{knob}={said(text)}: must be {KINDS[kind]}") from None


def _knobs():
    for field in dataclasses.fields(Config):
        law, meaning = field.metadata["law"].words, field.metadata["meaning"]
        words = meaning + (f" ({law})" if law != "anything" else "")
        if table := re.search(r"a key of ([\w.]+)\.(\w+)", meaning):
            module = importlib.import_module(f"samscale.{table[1]}")
            words += "; one of " + ", ".join(sorted(getattr(module, table[2])))
        start = f"  --config.{field.name}={field.default!r}\n"
        yield start + textwrap.fill(words, 79, initial_indent=8 * " ", subsequent_indent=8 * " ")
