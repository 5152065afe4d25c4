"""The command line: ``python main.py`` and ``samscale``. Parses, calls, and words errors."""

import sys
import textwrap

from samscale import __version__
from samscale.cli import shipped
from samscale.cli.doctor import doctor
from samscale.cli.flatness import flatness
from samscale.cli.landscape import landscape
from samscale.cli.streams import readable
from samscale.cli.studies import figure, report, results, status, study
from samscale.cli.train import load_config, parse, train
from samscale.named import meant

__all__ = ["load_config", "main", "parse", "train"]


COMMANDS = {
    command.__name__: command
    for command in (
        *(train, study, status, results, report, figure, flatness, landscape),
        *(shipped.configs, shipped.studies, shipped.new),
        doctor,
    )
}


def main(argv=None) -> int:
    """``samscale COMMAND ...``"""
    with readable():
        return _chosen(sys.argv if argv is None else argv)


def _chosen(argv):
    if len(argv) > 1 and argv[1] in COMMANDS:
        return COMMANDS[argv[1]](argv[1:])
    if len(argv) > 1 and argv[1] == "--version":
        print(f"samscale {__version__}")
        return 0
    asked = len(argv) > 1 and argv[1] in ("-h", "--help", "help")
    lines = [_line(name, f.__doc__) for name, f in COMMANDS.items()]
    if len(argv) > 1 and not asked:
        lines.insert(0, f"samscale: {argv[1]!r}: no such command{meant(argv[1], COMMANDS)}")
    print("\n".join(lines), file=sys.stdout if asked else sys.stderr)
    return 0 if asked else 2


def _line(name, sentence):
    indent = 2 * " "
    start = f"{indent}samscale {name:11}"
    return textwrap.fill(sentence, 79, initial_indent=start, subsequent_indent=len(start) * " ")
