"""Conditions on the columns of a table, as users of pandas write them; nothing in them is run.

A condition may hold columns (in backticks where a name is no word of Python), numbers, text, True
and False, tuples and lists; ``==``, ``!=``, ``<``, ``<=``, ``>``, ``>=``, also chained; ``in`` and
``not in``; ``and``, ``or`` and ``not``, also written ``&``, ``|`` and ``~``; and ``+``, ``-``,
``*``, ``/``, ``//``, ``%`` and ``**`` of numbers. As in pandas, ``x == [1, 2]`` asks for either,
unless the column holds tuples. A comparison with a missing value is false, except for ``!=`` and
``not in``.
"""

import ast
import difflib
import functools
import operator
import re
import warnings

import numpy as np
import pandas as pd

LONGEST = 10_000  # characters
LEGAL = (
    "write columns, numbers, text and lists, compared by ==, !=, <, <=, >, >=, in and not in, and "
    "joined by and, or and not, as in 'width > 300 and optimizer == \"sam\"'"
)
ARITHMETIC = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.FloorDiv: np.floor_divide,
    ast.Mod: np.mod,
    ast.Pow: np.power,
}
COMPARISONS = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
NUMBER, TEXT, TUPLE, TRUTH = "a number", "text", "a tuple", "true or false"
# text comes first: what stands in quotes is neither a name nor an operator
_TOKENS = re.compile(
    r"""(?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|`(?P<name>[^`]+)`|(?P<and>&+)|(?P<or>\|+)"""
)


def rows(table: pd.DataFrame, condition: str) -> pd.DataFrame:
    """The rows for which ``condition`` holds; all of a table without columns.

    Raises ``ValueError``, one sentence that says what is wrong. Cost: some microseconds a row and
    operator.
    """
    try:
        tree = _parsed(condition)
        if not len(table.columns):
            return table
        columns: dict[str, list] = {}

        @functools.cache
        def kind_of(name):
            columns[name] = _column(table, name)
            return _common_kind(columns[name])

        kind = _kind(tree, kind_of)
        if kind not in (TRUTH, None):
            raise ValueError(f"it is {kind}, which neither holds nor fails; {LEGAL}")
        each = ({name: values[i] for name, values in columns.items()} for i in range(len(table)))
        with np.errstate(all="ignore"):
            kept = [_is_true(_value(tree, row)) for row in each]
    except ValueError as error:
        raise ValueError(f"where={condition[:200]!r}: {error}") from error
    except (RecursionError, MemoryError) as error:
        raise ValueError(f"where={condition[:200]!r}: too deeply nested") from error
    return table[np.array(kept, bool)]


def _parsed(condition):
    """The tree of a condition, with the names of columns as its names."""
    if len(condition) > LONGEST:
        raise ValueError(f"longer than {LONGEST} characters")
    quoted: dict[str, str] = {}

    def plain(token):
        if token["name"]:
            placeholder = f"__column_{len(quoted)}__"
            quoted[placeholder] = token["name"]
            return f" {placeholder} "
        return token["text"] or (" and " if token["and"] else " or ")

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Python, about what is refused below
            tree = ast.parse(_TOKENS.sub(plain, condition).strip(), mode="eval").body
    except (SyntaxError, ValueError) as error:
        equal = re.search("[^=!<>]=[^=]", condition)
        hint = "write == for equal" if equal else LEGAL
        raise ValueError(f"it cannot be read; {hint}") from error
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            node.id = quoted.get(node.id, node.id)
    return tree


def _column(table, name):
    """The values of a column as Python's own; NaN where one is missing."""
    if name not in table:
        names = list(map(str, table.columns))
        close = difflib.get_close_matches(name, names, n=3)
        words = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(names)}"
        raise ValueError(f"no column {name!r}; {words}")
    return [_plain(value) for value in table[name].tolist()]


def _plain(value):
    if isinstance(value, list | tuple):
        return tuple(map(_plain, value))
    if isinstance(value, np.generic):
        return value.item()
    return np.nan if value is None or value is pd.NA or value is pd.NaT else value


def _kind_of(value):
    """What a value is; None where it is missing."""
    if isinstance(value, bool):
        return TRUTH
    if isinstance(value, int | float):
        return None if value != value else NUMBER
    return {str: TEXT, tuple: TUPLE}.get(type(value))


def _common_kind(values):
    """The kind of a column; None where it is none or several: then nothing is refused."""
    kinds = {kind for value in values if (kind := _kind_of(value))}
    return kinds.pop() if len(kinds) == 1 else None


def _kind(node, kind_of):
    """What a part of a condition is; ``kind_of``: name -> the kind of a column.

    Raises ``ValueError`` where it is not legal, or compares what is never equal.
    """
    part = lambda inner: _kind(inner, kind_of)
    match node:
        case ast.Name():
            return kind_of(node.id)
        case ast.Constant(value=bool() | int() | float() | str()):
            return _kind_of(node.value)
        case ast.Tuple() | ast.List():
            for inner in node.elts:
                part(inner)
            return TUPLE
        case ast.UnaryOp(op=ast.Not() | ast.Invert()):
            _must_be(part(node.operand), (TRUTH,), node.operand)
            return TRUTH
        case ast.BoolOp():
            for inner in node.values:
                _must_be(part(inner), (TRUTH,), inner)
            return TRUTH
        case ast.UnaryOp(op=ast.USub() | ast.UAdd()):
            _must_be(part(node.operand), (NUMBER, TRUTH), node.operand)
            return NUMBER
        case ast.BinOp() if type(node.op) in ARITHMETIC:
            for inner in (node.left, node.right):
                _must_be(part(inner), (NUMBER, TRUTH), inner)
            return NUMBER
        case ast.Compare():
            for left, comparison, right in _pairs(node):
                _check_pair(left, comparison, right, part)
            return TRUTH
    raise ValueError(f"{_words(node)} is not part of a condition; {LEGAL}")


def _must_be(kind, legal, node):
    if kind not in (*legal, None):
        raise ValueError(f"{_words(node)} is {kind}, but must be {legal[0]}")


def _pairs(node):
    """Of a chain: ``a < b < c`` is ``a < b and b < c``."""
    sides = [node.left, *node.comparators]
    return zip(sides[:-1], node.ops, sides[1:], strict=True)


def _check_pair(left, comparison, right, part):
    kinds = {part(left), part(right)}
    if isinstance(comparison, ast.In | ast.NotIn):
        if part(right) not in (TUPLE, None):
            raise ValueError(f"in {_words(right)}: must be a list, as in seed in (0, 1)")
        if _is_list(right):
            for inner in right.elts:
                _check_alike({part(left), part(inner)}, left, inner)
        return
    if type(comparison) not in COMPARISONS:
        raise ValueError(f"{_words(left)} is {_words(right)}: write == or != to compare")
    if isinstance(comparison, ast.Eq | ast.NotEq) and kinds != {TUPLE}:
        for one, other in ((left, right), (right, left)):
            if _is_list(other):  # either of its values
                for inner in other.elts:
                    _check_alike({part(one), part(inner)}, one, inner)
                return
    _check_alike(kinds, left, right)


def _check_alike(kinds, left, right):
    if len(kinds - {None}) > 1 and kinds - {None} != {NUMBER, TRUTH}:
        kind = {TUPLE: " such as (300, 100)", TEXT: " such as 'sam'"}
        known = [f"{k}{kind.get(k, '')}" for k in sorted(kinds - {None})]
        raise ValueError(
            f"{_words(left)} and {_words(right)} are never alike: one is {' and one '.join(known)}"
        )


def _is_list(node):
    return isinstance(node, ast.Tuple | ast.List)


def _words(node):
    """A part of a condition as it was written, or nearly."""
    text = ast.unparse(node)
    return text if len(text) <= 60 else text[:57] + "..."


def _value(node, row):
    """What a part of a condition is in one row."""
    match node:
        case ast.Name():
            return row[node.id]
        case ast.Constant():
            return node.value
        case ast.Tuple() | ast.List():
            return tuple(_value(inner, row) for inner in node.elts)
        case ast.UnaryOp(op=ast.Not() | ast.Invert()):
            return not _is_true(_value(node.operand, row))
        case ast.UnaryOp():
            value = _number(_value(node.operand, row))
            return -value if isinstance(node.op, ast.USub) else value
        case ast.BinOp():
            sides = (_number(_value(inner, row)) for inner in (node.left, node.right))
            return float(ARITHMETIC[type(node.op)](*sides))
        case ast.BoolOp():
            each = (_is_true(_value(inner, row)) for inner in node.values)
            return all(each) if isinstance(node.op, ast.And) else any(each)
    return all(_compared(left, comparison, right, row) for left, comparison, right in _pairs(node))


def _compared(left, comparison, right, row):
    one, other = _value(left, row), _value(right, row)
    if isinstance(comparison, ast.In | ast.NotIn):
        return _is_in(one, other) == isinstance(comparison, ast.In)
    if isinstance(comparison, ast.Eq | ast.NotEq):
        if _is_list(right) and not isinstance(one, tuple):
            equal = _is_in(one, other)
        elif _is_list(left) and not isinstance(other, tuple):
            equal = _is_in(other, one)
        else:
            equal = one == other
        return equal == isinstance(comparison, ast.Eq)
    try:
        return bool(COMPARISONS[type(comparison)](one, other))
    except TypeError:  # with a missing value, or in a column of several kinds
        return False


def _is_in(value, many):
    """Not by ``in``, to which a missing value would be equal to itself."""
    return isinstance(many, tuple) and any(value == each for each in many)


def _is_true(value):
    return value is True


def _number(value):
    """In double precision, so that no power takes long; NaN for what is missing."""
    try:
        return float(value) if isinstance(value, int | float) else np.nan
    except OverflowError:
        return np.copysign(np.inf, value)
