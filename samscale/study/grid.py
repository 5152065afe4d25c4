"""A study: a question, a base config, and axes with roles. Its cells are the runs that answer it.

Roles: *scientific* axes are what the question is about; *nuisance* axes (a radius, a learning rate)
are chosen anew in every scientific cell, on validation; *repeated* axes (seeds) give the interval;
everything else is fixed, as the base config says.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

from samscale.config import Config, unknown_knob

SCIENTIFIC, NUISANCE, REPEATED, FIXED = "scientific", "nuisance", "repeated", "fixed"
METHOD = "method"  # the axis whose first value is the baseline
QUICK_EPOCHS, QUICK_SEEDS, QUICK_VALUES, QUICK_SIZES = 3, 2, 2, 3


class Axis(NamedTuple):
    """Labels, each with the changes it makes to the base config."""

    name: str
    role: str
    values: Mapping[str, Mapping[str, Any]]
    only: tuple[str, ...] = ()  # the methods it applies to; none named: all


def scientific(name: str, values) -> Axis:
    """``values``: of the knob ``name``; or label -> changes, for a name of your own."""
    return Axis(name, SCIENTIFIC, _labelled(name, values))


def nuisance(name: str, values, only: Sequence[str] = ()) -> Axis:
    """Chosen on validation, for the methods ``only`` (default: every method)."""
    return Axis(name, NUISANCE, _labelled(name, values), tuple(only))


def repeated(name: str, values) -> Axis:
    """Replications, usually of ``seed``; differences are paired by them."""
    return Axis(name, REPEATED, _labelled(name, values))


def methods(base: Config, *names: str) -> Axis:
    """The axis ``method``, baseline first. ``sgd_2x``: sgd for twice as long, SAM's compute."""
    length = "num_epochs" if base.num_train_steps == -1 else "num_train_steps"
    values = {}
    for name in names:
        optimizer, twice, rest = name.partition("_2x")
        values[name] = {"optimizer": optimizer + rest}
        if twice:
            values[name][length] = 2 * getattr(base, length)
    return Axis(METHOD, SCIENTIFIC, values)


class Cell(NamedTuple):
    """A run of a study, and where it stands on each axis."""

    labels: Mapping[str, str]  # axis -> label; an axis that does not apply is left out
    config: Config


@dataclasses.dataclass(frozen=True)
class Study:
    """A page of questions and choices; see ``studies/``.

    The first scientific axis that is not ``method`` is the abscissa's; further ones are panels.
    ``x``: the abscissa's number, ``num_params`` or a knob. ``select`` chooses nuisance values,
    ``value`` is reported. ``paper``: points ``(x, mean, standard error)`` by method or "gain", and
    their ``source``.
    """

    question: str
    base: Config
    axes: tuple[Axis, ...]
    x: str = "num_params"
    metric: str = "accuracy"
    maximize: bool = True
    value: str = ""  # empty: test_METRIC of the last epoch
    select: str = ""  # empty: validation_METRIC of the last epoch
    paper: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def role(self, role: str) -> tuple[Axis, ...]:
        return tuple(axis for axis in self.axes if axis.role == role)

    @property
    def methods(self) -> Axis:
        return next(axis for axis in self.axes if axis.name == METHOD)

    @property
    def size(self) -> Axis:
        return next(axis for axis in self.role(SCIENTIFIC) if axis.name != METHOD)

    @property
    def panels(self) -> tuple[Axis, ...]:
        return tuple(
            axis for axis in self.role(SCIENTIFIC) if axis.name not in (METHOD, self.size.name)
        )

    def validate(self) -> "Study":
        """Return self, or raise ``ValueError`` with the field, its value and what is legal."""
        names = [axis.name for axis in self.axes]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"axes: {name!r} must appear once")
        if METHOD not in names:
            raise ValueError("axes: one must be called 'method', as grid.methods makes it")
        if not self.role(REPEATED):
            raise ValueError("axes: one must be repeated, as in repeated('seed', range(5))")
        if len(self.role(SCIENTIFIC)) < 2:
            raise ValueError("axes: one besides 'method' must be scientific: the abscissa's")
        for axis in self.axes:
            if not axis.values:
                raise ValueError(f"axes: {axis.name!r} must have at least one value")
            for method in axis.only:
                if method not in self.methods.values:
                    choices = ", ".join(self.methods.values)
                    raise ValueError(f"only={method!r} of {axis.name!r}: choose among {choices}")
        for cell in cells(self):
            cell.config.validate()
        return self

    def quick(self) -> "Study":
        """The same study in minutes: few epochs, seeds, sizes and nuisance values."""
        epochs = self.base.num_epochs
        factor = min(1.0, QUICK_EPOCHS / epochs)
        kept = {SCIENTIFIC: QUICK_SIZES, NUISANCE: QUICK_VALUES, REPEATED: QUICK_SEEDS}
        axes = []
        for axis in self.axes:
            values = axis.values if axis.name == METHOD else _thin(axis.values, kept[axis.role])
            shorter = {label: _shorten(changes, factor) for label, changes in values.items()}
            axes.append(axis._replace(values=shorter))
        base = dataclasses.replace(
            self.base,
            num_epochs=max(1, round(epochs * factor)),
            num_train_steps=_steps(self.base.num_train_steps),
            warmup_steps=0,
        )
        return dataclasses.replace(self, base=base, axes=tuple(axes))


def cells(study: Study) -> list[Cell]:
    """One for every combination of labels, those that share a program next to each other.

    Labels that mean the same config are cells of one run.
    """
    found = []
    for method, changes in study.methods.values.items():
        axes = [
            axis
            for axis in study.axes
            if axis.name != METHOD and (not axis.only or method in axis.only)
        ]
        for choice in product(*(axis.values.items() for axis in axes)):
            labels = {METHOD: method}
            knobs = dict(changes)
            for axis, (label, more) in zip(axes, choice, strict=True):
                labels[axis.name] = label
                knobs |= more
            for name in knobs:
                if name not in Config.__dataclass_fields__:
                    raise ValueError(f"axes: {unknown_knob(name)}")
            found.append(Cell(labels, dataclasses.replace(study.base, **knobs)))
    programs = [cell.config.program_id for cell in found]
    order = {program: i for i, program in reversed(list(enumerate(programs)))}
    return sorted(found, key=lambda cell: order[cell.config.program_id])


def _labelled(name, values) -> dict[str, dict[str, Any]]:
    if isinstance(values, Mapping):
        return {str(label): dict(changes) for label, changes in values.items()}
    if not isinstance(values, Iterable) or isinstance(values, str):
        raise ValueError(f"{name}={values!r}: must be several values, or label -> changes")
    words = lambda v: str(list(v)) if isinstance(v, tuple | list) else f"{v}"
    return {words(v): {name: tuple(v) if isinstance(v, list) else v} for v in values}


def _thin(values, kept):
    """The first, the last, and some between."""
    labels = list(values)
    kept = min(kept, len(labels))
    at = {round(i * (len(labels) - 1) / max(kept - 1, 1)) for i in range(kept)}
    return {label: values[label] for i, label in enumerate(labels) if i in at}


def _shorten(changes, factor):
    shorter = dict(changes)
    if "num_epochs" in shorter:
        shorter["num_epochs"] = max(1, round(shorter["num_epochs"] * factor))
    if "num_train_steps" in shorter:
        shorter["num_train_steps"] = _steps(shorter["num_train_steps"])
    return shorter


def _steps(steps):
    return steps if steps == -1 else max(1, steps // 20)
