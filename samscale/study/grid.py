"""A study: a question, a base config, and axes with roles. Its cells are the runs that answer it.

Roles: *scientific* axes are what the question is about; *nuisance* axes (a radius, a learning rate)
are chosen anew in every scientific cell, on validation; *repeated* axes (seeds) give the interval;
everything else is fixed, as the base config says.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice, product
from typing import Any, NamedTuple

from samscale.config import Config, unknown_knob

SCIENTIFIC, NUISANCE, REPEATED, FIXED = "scientific", "nuisance", "repeated", "fixed"
METHOD = "method"  # the axis whose first value is the baseline
QUICK_SEEDS, QUICK_VALUES = 2, 2
QUICK_EPOCHS, QUICK_SIZES = {True: 3, False: 1}, {True: 3, False: 2}  # of MLPs, of convolutions


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
    """Replications, usually of ``seed``; differences are paired by them, by all of them together
    where there are several."""
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


def published(x, source: str = "", n: int | None = None, **series) -> dict[str, Any]:
    """A paper's curves for ``Study.paper``: for "gain" or a method, means at ``x``, or (means,
    standard errors); in the unit of ``value``. ``n``: the runs that a mean is of, 3 unless told."""
    if n is not None and not (isinstance(n, int) and n > 0):
        raise ValueError(f"n={n!r}: must be a whole number greater than 0")
    points: dict[str, Any] = {k: v for k, v in {"source": source, "n": n}.items() if v}
    for name, means in series.items():
        errors = (None,) * len(x)
        if isinstance(means[0], tuple):
            means, errors = means
        points[name] = list(zip(x, means, errors, strict=True))
    return points


class Cell(NamedTuple):
    """A run of a study, and where it stands on each axis."""

    labels: Mapping[str, str]  # axis -> label; an axis that does not apply is left out
    config: Config


@dataclasses.dataclass(frozen=True)
class Study:
    """A page of questions and choices; see ``studies/``.

    The first scientific axis that is not ``method`` is the abscissa's; further ones are panels.
    ``x``: the abscissa's number, ``num_params`` or a knob. ``select`` chooses nuisance values,
    ``value`` is reported. ``paper``: what ``published`` gives, with a ``source``; in a study of
    several panels, one for each ("pruner=snip") beside the ``source``. ``pictures``: functions of
    the user's, each as module:function, that draw sections of the report; see ``pictures``.
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
    pictures: tuple[str, ...] = ()

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
        if not isinstance(self.question, str):
            raise ValueError(f"question={self.question!r}: must be text")
        if not isinstance(self.paper, Mapping):
            raise ValueError(f"paper={self.paper!r}: must be what published() gives, or absent")
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
            if axis.role == REPEATED and axis.only:
                raise ValueError(f"only={axis.only!r} of {axis.name!r}: must be empty, all repeat")
        numbers = [f.name for f in dataclasses.fields(Config) if f.type in (int, float)]
        if self.x not in ("num_params", *numbers):
            raise ValueError(f"x={self.x!r}: must be 'num_params', or a knob that is one number")
        for cell in cells(self):
            cell.config.validate()
        return self

    def lasting(self, epochs: int) -> "Study":
        """The same for ``epochs``; methods and sizes that last longer do so by the same factor.

        Raises ``ValueError`` where the length is given in steps.
        """
        if epochs < 1:
            raise ValueError(f"epochs={epochs}: must be greater than 0")
        if self.base.num_train_steps != -1:
            steps = self.base.num_train_steps
            raise ValueError(f"epochs={epochs}: this study counts steps, num_train_steps={steps}")
        return self._shortened(epochs / self.base.num_epochs)

    def replicated(self, times: int) -> "Study":
        """The same with ``times`` seeds: its own first, then the next numbers."""
        if times < 1:
            raise ValueError(f"seeds={times}: must be greater than 0")
        seeds = [axis for axis in self.role(REPEATED) if axis.name == "seed"]
        if not seeds:
            raise ValueError(f"seeds={times}: this study has no axis 'seed' to repeat")
        own = [changes["seed"] for changes in seeds[0].values.values()]
        more = range(max(own) + 1, max(own) + 1 + times)
        wanted = repeated("seed", [*own, *more][:times])
        return self._with_axes(wanted if axis is seeds[0] else axis for axis in self.axes)

    def quick(self) -> "Study":
        """The same in minutes: few epochs, and the first sizes, seeds and nuisance values."""
        small = self.base.model == "MLP"
        kept = {SCIENTIFIC: QUICK_SIZES[small], NUISANCE: QUICK_VALUES, REPEATED: QUICK_SEEDS}
        first = lambda axis: dict(islice(axis.values.items(), kept[axis.role]))
        thin = self._with_axes(
            axis if axis.name == METHOD else axis._replace(values=first(axis)) for axis in self.axes
        )
        if self.base.num_train_steps != -1:
            return thin._shortened(1 / 20)
        return thin._shortened(min(1.0, QUICK_EPOCHS[small] / self.base.num_epochs))

    def _with_axes(self, axes) -> "Study":
        return dataclasses.replace(self, axes=tuple(axes))

    def _shortened(self, factor) -> "Study":
        """Every length times ``factor``, the warmup's too."""
        base = dataclasses.replace(self.base, **_scaled(vars(self.base), factor))
        axes = (
            axis._replace(values={k: {**v, **_scaled(v, factor)} for k, v in axis.values.items()})
            for axis in self.axes
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
            found.append(Cell(labels, dataclasses.replace(study.base, **knobs).settled()))
    programs = [cell.config.program_id for cell in found]
    first = {program: i for i, program in reversed(list(enumerate(programs)))}
    order = sorted(range(len(found)), key=lambda i: first[programs[i]])
    return [found[i] for i in order]


def _labelled(name, values) -> dict[str, dict[str, Any]]:
    if isinstance(values, Mapping):
        return {str(label): dict(changes) for label, changes in values.items()}
    if not isinstance(values, Iterable) or isinstance(values, str):
        raise ValueError(f"{name}={values!r}: must be several values, or label -> changes")
    words = lambda v: str(list(v)) if isinstance(v, tuple | list) else f"{v}"
    return {words(v): {name: tuple(v) if isinstance(v, list) else v} for v in values}


def _scaled(knobs, factor):
    """Those of ``knobs`` that are lengths, times ``factor``; -1 steps remain -1."""
    least = {"num_epochs": 1, "num_train_steps": 1, "warmup_steps": 0}
    return {
        name: max(low, round(factor * knobs[name]))
        for name, low in least.items()
        if knobs.get(name, -1) != -1
    }
