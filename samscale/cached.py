"""What is kept in this user's cache folder, read back, and run: compiled programs, scripts.

Whoever can write such a file runs code in this user's name. A digest does not help, for it can be
written along with the file. So only files are read that belong to this user (or to root) and that
nobody else may write, from folders of which the same is true; new ones are made for this user
alone. What is refused is made anew, after one sentence on stderr. Systems without owners of files
(Windows) rely on the profile folder instead.
"""

import contextlib
import functools
import hashlib
import os
import pathlib
import stat
import sys
import tempfile

OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
OTHERS = stat.S_IRWXG | stat.S_IRWXO


def root() -> pathlib.Path:
    """``$XDG_CACHE_HOME/samscale``, else ``~/.cache/samscale``; below the folder for temporary
    files where this user has no home, as in some containers."""
    cache = os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    if cache.startswith("~"):
        cache = os.path.join(tempfile.gettempdir(), f"cache-{os.getuid()}")
    return pathlib.Path(cache) / "samscale"


def fault(found: os.stat_result, closed: bool = False) -> str:
    """Why a file or folder may hold what somebody else wrote, as a verb; empty where it cannot.

    ``closed``: it lies in a folder that others cannot enter, so that its own mode does not matter.
    """
    if not hasattr(os, "getuid"):
        return ""
    if found.st_uid not in (os.getuid(), 0):
        return f"belongs to another user (number {found.st_uid})"
    if found.st_mode & OTHERS_MAY_WRITE and not (closed or stat.S_ISLNK(found.st_mode)):
        return f"may be written by others (mode {stat.S_IMODE(found.st_mode):o})"
    return ""


def private(folder) -> bool:
    """Whether files of a folder may be run. Makes it where it is absent, and closes it to others.

    Says once on stderr why not; says nothing where the folder can neither be made nor read.
    """
    folder = pathlib.Path(folder)
    try:
        _make(folder)
        if reason := _fault_of_folder(folder):
            _refuse(folder, reason)
            return False
        if not folder.is_dir():
            return False
        if folder.stat().st_mode & OTHERS:
            with contextlib.suppress(PermissionError):  # root's, and as good
                folder.chmod(0o700)
    except OSError:
        return False
    return True


@functools.cache
def harmless(folder: str) -> bool:
    """Whether a folder and everything below it were written by this user (or root) alone.

    For files that a library reads by itself. Looked at once a process. Where nobody else may enter
    the folder, the modes of the files in it do not matter, for libraries follow the umask.
    """
    try:
        if reason := _fault_of_folder(pathlib.Path(folder)):
            _refuse(folder, reason)
            return False
        closed = not os.stat(folder).st_mode & OTHERS
        for path in pathlib.Path(folder).rglob("*"):
            with contextlib.suppress(FileNotFoundError):  # replaced meanwhile
                found = path.lstat()
                link = "is a symbolic link" if stat.S_ISLNK(found.st_mode) else ""
                if reason := fault(found, closed) or link:
                    _refuse(folder, f"{path.name} {reason}")
                    return False
    except FileNotFoundError:
        return True  # nothing is there yet
    except OSError:
        return False
    return True


def read(path) -> bytes | None:
    """What ``write`` wrote; None where it is absent, damaged, or may be somebody else's."""
    path = pathlib.Path(path)
    if not private(path.parent):
        return None
    try:
        # the file that was looked at is the one that is read, and no link leads elsewhere
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)), "rb") as file:
            if reason := fault(os.fstat(file.fileno())):
                _refuse(path.parent, f"{path.name} {reason}")
                return None
            content = file.read()
    except OSError:
        return None
    digest, content = content[:32], content[32:]
    return content if hashlib.sha256(content).digest() == digest else None


def write(path, content: bytes) -> None:
    """Whole or not at all, whoever else writes the same; readable to this user alone.

    Does nothing where the disk does not take it, or the folder is refused.
    """
    path = pathlib.Path(path)
    if not private(path.parent):
        return
    with contextlib.suppress(OSError), tempfile.TemporaryDirectory(dir=path.parent) as own:
        whole = pathlib.Path(own) / path.name
        whole.touch(mode=0o600)
        whole.write_bytes(hashlib.sha256(content).digest() + content)
        os.replace(whole, path)


def _make(folder):
    """The folder and those above it that are absent, for this user alone."""
    if not folder.is_dir():
        _make(folder.parent)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)


def _fault_of_folder(folder):
    """What is wrong with a folder, or with one above it that lets anybody replace it."""
    for path in dict.fromkeys([folder.absolute(), folder.resolve()]):
        if reason := fault(path.stat()) or fault(path.lstat()):
            return f"it {reason}"
        for above in path.parents:
            mode = above.stat().st_mode
            if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
                return f"anybody may replace what lies in {above} (mode {stat.S_IMODE(mode):o})"
    return ""


_REFUSED: set[str] = set()  # folders that were spoken of


def _refuse(folder, reason):
    if str(folder) not in _REFUSED:
        _REFUSED.add(str(folder))
        print(
            f"warning: the cache {folder} is not trusted, so what it holds is made anew: {reason}; "
            "remove it, and the next one will be yours alone",
            file=sys.stderr,
        )
