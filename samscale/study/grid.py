"""A study: a question, a base config, and axes with roles. Its cells are the runs that answer it.

See ``axes`` for the roles.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from itertools import islice, product
from typing import Any, NamedTuple

from samscale.config import Config
from samscale.laws import COUNT, SEEDS, bare, misfit, said
from samscale.study import axes as axes_of
from samscale.study import paper as papers
from samscale.study.axes import (
    LENGTH_FACTOR,
    METHOD,
    NUISANCE,
    REPEATED,
    SCIENTIFIC,
    Axis,
    repeated,
)

QUICK_SEEDS, QUICK_VALUES = 2, 2
QUICK_EPOCHS, QUICK_SIZES = {True: 3, False: 1}, {True: 3, False: 2}  # of MLPs, of convolutions
KINDS = {"question": str, "x": str, "metric": str, "maximize": bool, "value": str, "select": str}
LENGTHS = {"num_epochs": 1, "num_train_steps": 1, "warmup_steps": 0}  # knobs, and their least


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

    def __post_init__(self):
        for name in (*KINDS, "paper", "pictures"):
            object.__setattr__(self, name, bare(getattr(self, name)))
        if isinstance(self.axes, tuple | list) and not isinstance(self.axes, Axis):
            object.__setattr__(self, "axes", tuple(map(axes_of.tidied, self.axes)))

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
        self._check_fields()
        self._check_axes()
        numbers = [f.name for f in dataclasses.fields(Config) if f.type in (int, float)]
        if self.x not in ("num_params", *numbers):
            raise ValueError(f"x={self.x!r}: must be 'num_params', or a knob that is one number")
        for _, config in _combined(self):
            config.validate()
        return self

    def _check_fields(self):
        """Types alone: whatever looks at a field afterwards may rely on them."""
        for name, kind in KINDS.items():
            if words := misfit(getattr(self, name), kind):
                raise ValueError(f"{name}={said(getattr(self, name))}: must be {words}")
        if not isinstance(self.base, Config):
            raise ValueError(f"base={said(self.base)}: must be a samscale Config")
        if not isinstance(self.axes, tuple) or isinstance(self.axes, Axis):
            raise ValueError(f"axes={said(self.axes)}: must be several axes, as in axes=(..., ...)")
        for axis in self.axes:
            axes_of.check(axis)
        papers.check(self.paper)
        wrong = f"pictures={said(self.pictures)}: must be names, as in ('module:function',)"
        if not isinstance(self.pictures, tuple):
            raise ValueError(wrong)
        for picture in self.pictures:
            if not isinstance(picture, str) or not all(picture.partition(":")):
                raise ValueError(wrong)

    def _check_axes(self):
        names = [axis.name for axis in self.axes]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"axes: {name!r} must appear once")
        if METHOD not in names:
            raise ValueError("axes: one must be called 'method', as methods() makes it")
        if not self.role(REPEATED):
            raise ValueError("axes: one must be repeated, as in repeated('seed', range(5))")
        if len(self.role(SCIENTIFIC)) < 2:
            raise ValueError("axes: one besides 'method' must be scientific: the abscissa's")
        value = self.value or f"test_{self.metric}"
        if value in names:
            raise ValueError(f"axes: none must be called {value!r}, which is the value reported")
        for axis in self.axes:
            for method in axis.only:
                if method not in self.methods.values:
                    choices = ", ".join(self.methods.values)
                    raise ValueError(f"only={method!r} of {axis.name!r}: choose among {choices}")
        axes_of.check_together(self.axes, self.base)

    def lasting(self, epochs: int) -> "Study":
        """The same for ``epochs``; methods and sizes that last longer do so by the same factor.

        Raises ``ValueError`` where the length is given in steps.
        """
        if misfit(epochs, int) or not COUNT.holds(epochs):
            raise ValueError(f"epochs={said(epochs)}: must be {COUNT.words}")
        changed = {knob for axis in self.axes for more in axis.values.values() for knob in more}
        if self.base.num_train_steps != -1 or "num_train_steps" in changed:
            steps = self.base.num_train_steps
            raise ValueError(f"epochs={epochs}: this study counts steps, num_train_steps={steps}")
        return self._shortened(epochs / self.base.num_epochs)

    def replicated(self, times: int) -> "Study":
        """The same with ``times`` seeds: its own first, then the next numbers."""
        if misfit(times, int) or not SEEDS.holds(times):
            raise ValueError(f"seeds={said(times)}: must be {SEEDS.words}")
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
        axes = tuple(_shorter(axis, factor) for axis in self.axes)
        return dataclasses.replace(self, base=base, axes=axes)


def cells(study: Study) -> list[Cell]:
    """One for every combination of labels, those that share a program next to each other.

    Labels that mean the same config are cells of one run.
    """
    found = [Cell(labels, config.settled()) for labels, config in _combined(study)]
    programs = [cell.config.program_id for cell in found]
    first = {program: i for i, program in reversed(list(enumerate(programs)))}
    order = sorted(range(len(found)), key=lambda i: first[programs[i]])
    return [found[i] for i in order]


def _combined(study) -> Iterator[tuple[dict[str, str], Config]]:
    """The labels and the config of every cell. Raises ``ValueError`` for a knob that is none."""
    for axis in study.axes:
        axes_of.check_changes(axis)
    for method, changes in study.methods.values.items():
        axes = [
            axis
            for axis in study.axes
            if axis.name != METHOD and (not axis.only or method in axis.only)
        ]
        for choice in product(*(axis.values.items() for axis in axes)):
            labels = {METHOD: method}
            knobs, factor = dict(changes), changes.get(LENGTH_FACTOR, 1)
            for axis, (label, more) in zip(axes, choice, strict=True):
                labels[axis.name] = label
                knobs |= more
                factor *= more.get(LENGTH_FACTOR, 1)
            knobs.pop(LENGTH_FACTOR, None)
            yield labels, _longer(dataclasses.replace(study.base, **knobs), factor)


def count(study: Study) -> int:
    """How many ``cells`` there are, without making them; 0 where ``validate`` refuses the axes."""
    if not all(isinstance(a, Axis) and isinstance(a.values, Mapping) for a in study.axes):
        return 0
    methods = [method for axis in study.axes if axis.name == METHOD for method in axis.values]
    others = [axis for axis in study.axes if axis.name != METHOD]
    applying = ([a for a in others if not a.only or method in a.only] for method in methods)
    return sum(math.prod(len(axis.values) for axis in axes) for axes in applying)


def _longer(config, factor):
    """The same for ``factor`` times as long, in whichever unit its length is counted."""
    name = "num_epochs" if config.num_train_steps == -1 else "num_train_steps"
    if factor == 1 or misfit(getattr(config, name), int):
        return config
    return dataclasses.replace(config, **_scaled({name: getattr(config, name)}, factor))


def _shorter(axis, factor):
    """An axis with its lengths times ``factor``; labels that are lengths say the new ones."""
    values = {}
    for label, changes in axis.values.items():
        new = {**changes, **_scaled(changes, factor)}
        is_length = axis.name in LENGTHS and set(changes) == {axis.name}
        values[axes_of.words(new[axis.name]) if is_length else label] = new
    return axis._replace(values=values)


def _scaled(knobs, factor):
    """Those of ``knobs`` that are lengths, times ``factor``; -1 steps remain -1."""
    return {
        name: max(low, round(factor * knobs[name]))
        for name, low in LENGTHS.items()
        if knobs.get(name, -1) != -1
    }
