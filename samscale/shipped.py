"""The configs and studies that come with samscale, found by name from any folder.

In a checkout they lie beside the package, where they are easy to read and to copy; a wheel holds
them inside of the package.
"""

import ast
import pathlib

from samscale.named import meant

FOLDERS = {"config": "configs", "study": "studies"}  # field of the command line -> folder


def folder(field: str) -> pathlib.Path:
    """Where the files of ``field`` ("config" or "study") lie."""
    package = pathlib.Path(__file__).parent
    checkout = (package.parent / "pyproject.toml").is_file()
    return (package.parent if checkout else package) / FOLDERS[field]


def names(field: str) -> dict[str, str]:
    """Name -> first line of the docstring, in the order of the names; no file is imported."""
    files = sorted(folder(field).glob("[!_]*.py"))
    return {file.stem: _first_line(file) for file in files}


def find(field: str, text: str) -> pathlib.Path:
    """The file that ``text`` means: a path, else a name as in ``digits_width``.

    A file of the user's wins: at the path itself, or NAME.py in the current folder. ``NAME``,
    ``NAME.py`` and ``studies/NAME.py`` all mean the file that comes with samscale. Raises
    ``ValueError``, with the closest name, where there is none.
    """
    path = pathlib.Path(text).expanduser()
    for own in (path, path.with_name(f"{path.name}.py") if path.name else path):
        if own.is_file():
            return own
    if path.parent in (pathlib.Path(), pathlib.Path(FOLDERS[field])):
        name = path.name.removesuffix(".py")
        ours = folder(field) / f"{name}.py"
        if name in names(field):
            return ours
    hint = meant(path.name.removesuffix(".py"), names(field))
    raise ValueError(
        f"{field}={text!r}: no such file, and no {field} of that name comes with samscale"
        + (hint or f"; samscale {FOLDERS[field]} lists them")
    )


def _first_line(file) -> str:
    module = ast.parse(file.read_text(encoding="utf-8"))
    return (ast.get_docstring(module) or "").partition("\n")[0]
