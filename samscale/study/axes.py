"""The axes of a study: labels, each with what it changes of the base config, under a role.

Roles: *scientific* axes are what the question is about; *nuisance* axes (a radius, a learning rate)
are chosen anew in every scientific cell, on validation; *repeated* axes (seeds) give the interval;
everything else is fixed, as the base config says.
"""

import keyword
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from samscale.config import Config, unknown_knob
from samscale.laws import bare, plain, said
from samscale.study.columns import is_column

SCIENTIFIC, NUISANCE, REPEATED, FIXED = "scientific", "nuisance", "repeated", "fixed"
METHOD = "method"  # the axis whose first value is the baseline
LENGTH_FACTOR = "length_factor"  # a change beside the knobs: so many times as long
MOST_VALUES = 10_000  # of an axis


class Axis(NamedTuple):
    """Labels, each with the changes it makes to the base config.

    A change is a knob with its value, or ``length_factor``: a run lasts that many times as long as
    the base and the other axes say, in epochs or steps, whichever they count.
    """

    name: str
    role: str
    values: Mapping[str, Mapping[str, Any]]
    only: tuple[str, ...] = ()  # the methods it applies to; none named: all


def scientific(name: str, values) -> Axis:
    """``values``: of the knob ``name``; or label -> changes, for a name of your own."""
    return Axis(name, SCIENTIFIC, labelled(name, values))


def nuisance(name: str, values, only: Sequence[str] = ()) -> Axis:
    """Chosen on validation, for the methods ``only`` (default: every method)."""
    if isinstance(only, str) or not isinstance(only, Iterable):
        raise ValueError(f"only={said(only)}: must be names of methods, as in only=['sam']")
    return Axis(name, NUISANCE, labelled(name, values), tuple(only))


def repeated(name: str, values) -> Axis:
    """Replications, usually of ``seed``; differences are paired by them, by all of them together
    where there are several."""
    return Axis(name, REPEATED, labelled(name, values))


def methods(base: Config, *names: str) -> Axis:
    """The axis ``method``, baseline first. ``sgd_2x``: sgd for twice as long, SAM's compute.

    Twice as long as the same cell of another method, whichever axis says how long that is.
    """
    if not isinstance(base, Config):
        raise ValueError(f"base={said(base)}: must be a samscale Config, before the methods' names")
    values = {}
    for name in names:
        if not isinstance(name, str) or not name:
            raise ValueError(f"methods: {said(name)} must be the name of a method, such as 'sam'")
        if name in values:
            raise ValueError(f"methods: {name!r} must appear once")
        optimizer, twice, rest = str(name).partition("_2x")
        values[str(name)] = {"optimizer": optimizer + rest} | ({LENGTH_FACTOR: 2} if twice else {})
    return Axis(METHOD, SCIENTIFIC, values)


def labelled(name, values) -> dict[str, dict[str, Any]]:
    """Label -> changes, of values of the knob ``name`` or of what is that already.

    Raises ``ValueError`` for anything else, and where two values have one label.
    """
    law = "must be several values in an order, or label -> changes"
    if isinstance(values, str | bytes | set | frozenset) or not isinstance(values, Iterable):
        raise ValueError(f"{name}={said(values)}: {law}")
    if isinstance(values, Mapping):
        pairs = [(str(bare(label)), bare(changes)) for label, changes in values.items()]
    else:
        some = [bare(value) for value in islice(values, MOST_VALUES + 1)]
        pairs = [(words(value), {name: value}) for value in some]
    if len(pairs) > MOST_VALUES:
        raise ValueError(f"{name}: must have at most {MOST_VALUES} values")
    found: dict[str, dict[str, Any]] = {}
    for label, changes in pairs:
        if label in found:
            raise ValueError(f"{name}: {label} must appear once among the values")
        found[label] = changes
    return found


def words(value) -> str:
    """The label of a value."""
    return str(list(value)) if isinstance(value, tuple) else str(value)


def tidied(axis: Any) -> Any:
    """An axis with Python's own numbers and texts, as knobs hold them, which files can hold, too.

    Anything else as it is, for ``check`` to say what is wrong with it.
    """
    if not isinstance(axis, Axis):
        return axis
    name, role, values, only = bare(tuple(axis))
    if isinstance(values, Mapping):
        values = {label: _as_knobs(changes) for label, changes in values.items()}
    return Axis(name, role, values, only)


def _as_knobs(changes):
    if not isinstance(changes, Mapping):
        return changes
    fields = Config.__dataclass_fields__
    return {k: plain(v, fields[k].type) if k in fields else v for k, v in changes.items()}


def check(axis: Any) -> None:
    """Raises ``ValueError`` for what no axis of a study may be."""
    if not isinstance(axis, Axis):
        made = "scientific(), methods(), nuisance() or repeated()"
        raise ValueError(f"axes: {said(axis)} must be an axis, as {made} make it")
    name, role, values, only = axis
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"axes: {said(name)} must be the name of an axis")
    _check_name(name, role)
    if not isinstance(values, Mapping):
        raise ValueError(f"axes: {name!r} must map labels to changes, not be {said(values)}")
    if not values:
        raise ValueError(f"axes: {name!r} must have at least one value")
    for label, changes in values.items():
        if not isinstance(label, str) or not isinstance(changes, Mapping):
            pair = f"{said(label)}: {said(changes)}"
            raise ValueError(f"axes: {name!r} must map labels to changes of the base, not {pair}")
    check_changes(axis)
    if not isinstance(only, tuple):
        raise ValueError(f"only={said(only)} of {name!r}: must be names of methods")
    if only and role != NUISANCE:
        raise ValueError(f"only={said(only)} of {name!r}: must be empty, all are {role}")


def _check_name(name, role):
    if role not in (SCIENTIFIC, NUISANCE, REPEATED):
        legal = f"{SCIENTIFIC!r}, {NUISANCE!r} or {REPEATED!r}"
        raise ValueError(f"axes: role={said(role)} of {name!r}: must be {legal}")
    if (name == METHOD) and role != SCIENTIFIC:
        raise ValueError(
            f"role={role!r} of {METHOD!r}: must be {SCIENTIFIC!r}, as methods() makes it"
        )
    if is_column(name, role == NUISANCE):
        raise ValueError(
            f"axes: a {role} axis must not be called {name!r}, which is a column of the results: "
            f"call it 'my_{name}', say"
        )
    if role == NUISANCE and (not name.isidentifier() or keyword.iskeyword(name)):
        raise ValueError(f"axes: {name!r} must be a name of letters, digits and _, for a column")


def check_changes(axis: Axis) -> None:
    """Raises ``ValueError`` where a change is neither a knob nor a ``length_factor``."""
    for changes in axis.values.values():
        for knob, value in changes.items():
            if knob == LENGTH_FACTOR:
                if type(value) not in (int, float) or not 0 < value <= 1000:
                    wrong = f"{LENGTH_FACTOR}={said(value)}"
                    raise ValueError(f"axes: {wrong}: must be greater than 0 and at most 1000")
            elif knob not in Config.__dataclass_fields__:
                raise ValueError(f"axes: {unknown_knob(str(knob))}")


def check_together(axes: Sequence[Axis], base: Config) -> None:
    """Raises ``ValueError`` where axes contradict each other, or a replicate counts twice."""
    for axis in axes:
        if axis.role == REPEATED:
            _check_replicates(axis, base)
    applied = next(axis for axis in axes if axis.name == METHOD)
    for method, changes in applied.values.items():
        owners = dict.fromkeys(changes, METHOD)
        for axis in axes:
            if axis.name == METHOD or (axis.only and method not in axis.only):
                continue
            for knob in {knob: None for more in axis.values.values() for knob in more}:
                if knob in owners and knob != LENGTH_FACTOR:
                    both = f"{owners[knob]!r} and {axis.name!r}"
                    raise ValueError(f"axes: {both} both set {knob} for {method!r}; one must not")
                owners[knob] = axis.name
        steps = base.num_train_steps != -1 or "num_train_steps" in owners
        if steps and "num_epochs" in owners:
            raise ValueError(
                f"axes: {owners['num_epochs']!r} sets num_epochs, which says nothing where "
                "num_train_steps is set: let it set num_train_steps instead"
            )


def _check_replicates(axis, base):
    """Two labels of one run would make an interval narrower than it is."""
    fields = Config.__dataclass_fields__
    knobs = {knob for changes in axis.values.values() for knob in changes}
    telling = sorted(k for k in knobs if k == LENGTH_FACTOR or fields[k].metadata["identity"])
    seen: dict[str, str] = {}
    for label, changes in axis.values.items():
        text = repr([changes.get(k, getattr(base, k, 1)) for k in telling])
        if text in seen:
            same = f"{seen[text]!r} and {label!r}"
            raise ValueError(f"axes: {same} of {axis.name!r} are one run, which would count twice")
        seen[text] = label
