"""What commands print arrives: on screens that know few letters, and where readers leave early."""

import contextlib
import os
import sys
import unicodedata

NEAREST = {
    "±": "+-",
    "−": "-",
    "–": "-",
    "—": "-",
    "·": ".",
    "×": "x",
    "≤": "<=",
    "≥": ">=",
    "≈": "~",
    "→": "->",
    "∞": "inf",
    "“": '"',
    "”": '"',
    "‘": "'",
    "’": "'",
    "•": "*",
    "█": "#",
    "━": "-",
}


@contextlib.contextmanager
def readable():
    """Within, ``print`` fails neither for want of a letter nor of a reader.

    What nobody reads any more, as of ``| head``, is dropped, and the command goes on to its end.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(_wrapped, before)
    try:
        yield
    finally:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
        sys.stdout, sys.stderr = before


def plain(text: str, encoding: str) -> str:
    """``text`` in letters that the encoding has: the nearest ones, else their numbers."""
    try:
        text.encode(encoding)
        return text
    except UnicodeEncodeError:
        return "".join(_letter(letter, encoding) for letter in text)


def _letter(letter, encoding):
    decomposed = unicodedata.normalize("NFKD", letter)
    without_marks = "".join(c for c in decomposed if not unicodedata.combining(c))
    for candidate in (letter, NEAREST.get(letter), without_marks):
        with contextlib.suppress(UnicodeEncodeError):
            if candidate:
                candidate.encode(encoding)
                return candidate
    return letter.encode("ascii", "backslashreplace").decode()


def _wrapped(stream):
    return stream if stream is None or isinstance(stream, _Stream) else _Stream(stream)


class _Stream:
    """A stream of text in the place of another, which it otherwise is."""

    def __init__(self, stream):
        self._stream = stream

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def write(self, text):
        with self._until_the_reader_leaves():
            self._stream.write(plain(text, self._stream.encoding or "utf-8"))
        return len(text)

    def writelines(self, lines):
        for line in lines:
            self.write(line)

    def flush(self):
        with self._until_the_reader_leaves():
            self._stream.flush()

    @contextlib.contextmanager
    def _until_the_reader_leaves(self):
        try:
            yield
        except BrokenPipeError:
            # what is still buffered goes nowhere, too, also when the interpreter ends
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
