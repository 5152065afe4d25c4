"""``samscale studies``, ``configs``, ``new``: what comes with samscale, and files to begin from."""

import importlib.resources
import pathlib
import re
import textwrap

from samscale import shipped
from samscale.cli.words import Parser, fail, words
from samscale.named import says

WIDTH = 79  # columns of a terminal that is not wider


@says("List the studies that come with samscale, a line each")
def studies(argv) -> int:
    return _list(argv, "study", "samscale study NAME --workdir=runs")


@says("List the configs that come with samscale, a line each")
def configs(argv) -> int:
    return _list(argv, "config", "samscale train --config=NAME --workdir=runs")


@says("Write a commented study or config to begin from: {study,config} FILE")
def new(argv) -> int:
    parser = Parser(
        prog="samscale new",
        description="Write a commented file that runs as it is, to begin your own from.",
        epilog="example: samscale new study my_question.py",
    )
    parser.add_argument("kind", choices=sorted(shipped.FOLDERS))
    parser.add_argument("file", metavar="FILE", help="a new file, named *.py")
    args = parser.parse_args(argv[1:])
    path = pathlib.Path(args.file).expanduser()
    if path.suffix != ".py":
        return fail(f"file={args.file!r}: must end in .py", 2)
    text = importlib.resources.files("samscale.templates").joinpath(f"{args.kind}.py").read_text()
    try:
        with path.open("x") as file:  # never over a file that is there
            file.write(text.replace("{file}", args.file))
    except FileExistsError:
        return fail(f"file={args.file!r}: must be a new file; this one exists", 2)
    except OSError as error:
        return fail(words(error), 1)
    print(f"{path}: edit it, then\n{_next(args.kind, args.file)}")
    return 0


def _list(argv, field, use) -> int:
    folder = shipped.FOLDERS[field]
    parser = Parser(
        prog=f"samscale {folder}",
        description=f"List the {folder} that come with samscale, a line each.",
        epilog=f"use one from any folder: {use}",
    )
    parser.parse_args(argv[1:])
    found = shipped.names(field)
    width = max(map(len, found)) + 2
    for name, line in found.items():
        print(f"{name:{width}}{_cut(line, width)}")
    print(f"\n{use}\nThe files, to copy: {shipped.folder(field)}")
    return 0


def _cut(line, width):
    sentence = re.split(r"(?<=[.?])\s", line)[0]
    return textwrap.shorten(sentence, WIDTH - width, placeholder=" ...")


def _next(kind, file):
    if kind == "study":
        return f"samscale study {file} --workdir=runs"
    return f"samscale train --config={file} --workdir=runs"
