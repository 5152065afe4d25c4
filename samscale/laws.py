"""What the value of a knob must satisfy: its type, and what single precision and int32 hold of it.

A run computes in float32 and counts in int32. A number that is zero, one or infinite there, though
it is not here, would say one thing in the config and do another.
"""

import numbers
import typing
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

KINDS = {
    int: "a whole number",
    float: "a finite number (single precision)",
    bool: "True or False",
    str: "text",
    tuple[int, ...]: "whole numbers, as in (300, 100)",
    tuple[str, ...]: "names, as in ('Dense_0', 'Dense_1')",
}
LARGEST = (2 - 2**-23) * 2.0**127  # of single precision
SMALLEST = 2.0**-126  # beside 0, of single precision: devices take what is smaller for 0
MOST = 2**31 - 1  # of int32
LONGEST = 200  # characters of a value that a sentence repeats
_ALSO = {int: numbers.Integral, float: numbers.Real}  # what may stand for these: Fraction, too


def bare(value):
    """``value`` with Python's own numbers and texts for those of NumPy and JAX, also inside.

    Arrays and lists become tuples. A number of single precision becomes the shortest decimal that
    rounds to it: ``np.float32(0.1)`` means 0.1, and names the same run.
    """
    if isinstance(value, Mapping):
        return {bare(name): bare(v) for name, v in value.items()}
    if isinstance(value, tuple | list):
        return tuple(map(bare, value))
    if not (hasattr(value, "dtype") and hasattr(value, "shape")):
        return value
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):  # such as a random key: whoever checks it says what it is not
        return value
    if array.ndim:
        return tuple(map(bare, array))
    item = array.item()
    is_float = isinstance(item, float | np.floating)  # the latter: more than double precision
    return float(str(array[()])) if is_float else item


def plain(value, kind):
    """``value`` as a field of ``kind`` holds it: a tuple for a list, a float for 1; else itself."""
    value = bare(value)
    if isinstance(value, tuple) and typing.get_args(kind):
        return tuple(plain(v, typing.get_args(kind)[0]) for v in value)
    if kind is str and isinstance(value, str):
        return str.__str__(value)
    number = isinstance(value, _ALSO.get(kind, ())) and type(value) is not bool
    return kind(value) if number and abs(value) <= LARGEST else value


def fits(value, kind) -> bool:
    """Whether ``value`` is of one of ``KINDS``."""
    return not misfit(value, kind)


def misfit(value, kind) -> str:
    """What ``value`` must be to be of one of ``KINDS``; empty where it is."""
    if kind is float and type(value) is float and 0 < abs(value) < SMALLEST:
        return f"0, or at least {SMALLEST:.2g} in size: single precision holds no smaller number"
    if kind is float:
        right = type(value) is float and abs(value) <= LARGEST
    elif kind in (int, bool, str):
        right = type(value) is kind
    else:
        (item, _) = typing.get_args(kind)
        right = isinstance(value, tuple) and all(type(v) is item for v in value)
    return "" if right else KINDS[kind]


def said(value) -> str:
    """``value`` as a sentence repeats it, on one line of bounded length."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # a whole number of thousands of digits, or an object whose repr fails
        return f"(a {type(value).__name__} that cannot be printed)"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


class Law(NamedTuple):
    """What a value must satisfy, as a test and as words that follow "must be"."""

    holds: Callable[[Any], bool]
    words: str


ANY = Law(lambda value: True, "anything")
POSITIVE = Law(lambda value: value > 0, "greater than 0")


def at_least(low):
    return Law(lambda value: value >= low, f"at least {low}")


def within(low, high):
    return Law(lambda value: low <= value <= high, f"between {low} and {high}")


SEED = within(0, 2**32 - 1)


def below_one(value):
    """In single precision, too, where 0.99999999 is 1."""
    return value >= 0 and np.float32(value) < 1


FRACTION = Law(below_one, "at least 0 and less than 1 (single precision)")
COUNT = Law(lambda value: 0 < value <= MOST, f"greater than 0 and at most {MOST}")
COUNT_OR_NONE = within(0, MOST)
COUNT_OR_ALL = Law(
    lambda value: value == -1 or 0 < value <= MOST, f"-1 (all) or between 1 and {MOST}"
)
COUNT_OR_OWN = Law(COUNT_OR_ALL.holds, f"-1 (the method's) or between 1 and {MOST}")
SEEDS = Law(lambda value: 0 < value <= 10_000, "greater than 0 and at most 10000")  # of a study
AT_ONCE = Law(lambda value: 0 <= value <= 10_000, "0 or more, and at most 10000")  # processes
WIDTH = within(1, 10**7)  # of a layer: beyond, XLA aborts instead of asking for memory
DEPTH = within(1, 1000)  # of a loop that a program is built in: beyond, building it takes hours
OWN_OR_DEPTH = Law(
    lambda value: value == -1 or DEPTH.holds(value), "-1 (the method's) or between 1 and 1000"
)
OWN_OR_ZERO = Law(lambda value: value == -1 or value >= 0, "-1 (the method's own) or at least 0")
SHARE = Law(lambda value: 0 < value <= 1, "greater than 0 and at most 1")


def is_norm(value):
    try:
        return float(value) >= 1
    except ValueError:
        return False


NORM = Law(is_norm, "a number of at least 1, or 'inf'")


def one_of(*names):
    return Law(lambda value: value in names, "one of " + ", ".join(repr(name) for name in names))


def each(law):
    return Law(lambda values: all(map(law.holds, values)), f"{law.words}, each of them")
