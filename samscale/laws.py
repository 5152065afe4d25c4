"""What the value of a knob must satisfy."""

import numbers
import typing
from collections.abc import Callable
from typing import Any, NamedTuple

KINDS = {
    int: "a whole number",
    float: "a finite number (single precision)",
    bool: "True or False",
    str: "text",
    tuple[int, ...]: "whole numbers, as in (300, 100)",
    tuple[str, ...]: "names, as in ('Dense_0', 'Dense_1')",
}
LARGEST = (2 - 2**-23) * 2.0**127  # of single precision
_ALSO = {int: numbers.Integral, float: numbers.Real}  # what may stand for these: NumPy's, too


def plain(value, kind):
    """``value`` as a field of ``kind`` holds it: a tuple for a list, a float for 1; else itself."""
    if isinstance(value, (list, tuple)) and typing.get_args(kind):
        return tuple(plain(v, typing.get_args(kind)[0]) for v in value)
    number = isinstance(value, _ALSO.get(kind, ())) and type(value) is not bool
    return kind(value) if number and abs(value) <= LARGEST else value


def fits(value, kind) -> bool:
    """Whether ``value`` is of one of ``KINDS``."""
    if kind is float:
        return type(value) is float and abs(value) <= LARGEST
    if kind in (int, bool, str):
        return type(value) is kind
    (item, _) = typing.get_args(kind)
    return isinstance(value, tuple) and all(type(v) is item for v in value)


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
    return 0 <= value < 1


FRACTION = Law(below_one, "at least 0 and less than 1")
ALL_OR_POSITIVE = Law(lambda value: value == -1 or value > 0, "-1 (all) or greater than 0")
WIDTH = within(1, 10**7)  # of a layer: beyond, XLA aborts instead of asking for memory
MOST_STEPS = 2**31 - 1  # they are counted in int32
STEPS = Law(
    lambda value: value == -1 or 0 < value <= MOST_STEPS, f"-1 (all) or between 1 and {MOST_STEPS}"
)


OWN_OR_POSITIVE = Law(lambda value: value == -1 or value > 0, "-1 (the method's) or greater than 0")
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
