"""Kinds of damage that a file may suffer."""

import contextlib
import shutil

FLIPS = 4  # places of a file where a bit is turned
SHAPES = (b"null", b"3", b"[]", b"{}", b"[" * 100_000, b'[{"run_id": []}]\n')


def kinds(path):
    """Name -> what the file holds then; None: it is gone, a dictionary: it is a folder."""
    content = path.read_bytes()
    yield "empty", b""
    yield "cut in half", content[: len(content) // 2]
    yield "without its last line", b"".join(content.splitlines(keepends=True)[:-1])
    yield "longer", content + b"\0"
    for text in SHAPES:
        yield f"holds {text[:20]!r}", text
    for i in range(FLIPS):
        flipped, place = bytearray(content), (2 * i + 1) * len(content) // (2 * FLIPS)
        flipped[place] ^= 1 << (i % 8)
        yield f"bit turned at {place}", bytes(flipped)
    yield "a folder", {}
    yield "gone", None


@contextlib.contextmanager
def inflicted(path, content):
    """Makes the file what ``kinds`` gave, and puts it back at the end."""
    before = path.read_bytes()
    inflict(path, content)
    yield
    if path.is_dir():
        shutil.rmtree(path)
    path.write_bytes(before)


def inflict(path, content):
    path.unlink()
    if content == {}:
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
