"""Every knob of a run, once: its type, default, meaning, and the law its value must obey.

Only the composition roots (``main.py``, ``tasks.build``, ``training``) see a ``Config``; the layers
below take plain values. An option that is not listed here does not exist.
"""

import dataclasses
import hashlib
import json
import re
import typing
from collections.abc import Mapping
from typing import Any

from samscale.file_names import component
from samscale.knobs import OWN, FlatnessKnobs, SharpnessKnobs, knob, own
from samscale.laws import (
    COUNT,
    COUNT_OR_ALL,
    COUNT_OR_NONE,
    DEPTH,
    FRACTION,
    POSITIVE,
    SEED,
    WIDTH,
    at_least,
    each,
    misfit,
    one_of,
    plain,
    said,
    within,
)
from samscale.named import meant


@dataclasses.dataclass
class Config(SharpnessKnobs, FlatnessKnobs):
    """One run. Parsed and validated at the boundary, and never changed afterwards."""

    # What is trained
    task: str = knob("", "module:function of a Task of your own; empty: model on dataset")
    dataset: str = knob("digits", "a key of data.DATASETS")
    model: str = knob("MLP", "a key of models.MODELS")
    num_neurons: tuple[int, ...] = knob((300, 100), "hidden widths of the MLP", each(WIDTH))
    num_filters: int = knob(64, "filters of a ResNet's first stage: its width", WIDTH)
    num_blocks: tuple[int, ...] = knob(
        (), "residual blocks a stage; empty: as the model's name says", each(DEPTH)
    )
    dropout: float = knob(0.0, "rate at which hidden units of the MLP are dropped", FRACTION)
    init_scale: float = knob(
        1.0, "factor of the initial kernels; 0.58 is about PyTorch's default", POSITIVE
    )
    loss: str = knob("cross_entropy", "a key of tasks.LOSSES")
    label_smoothing: float = knob(
        0.0, "share of a label spread over all classes in training, for cross_entropy", FRACTION
    )

    # Its data
    validation_fraction: float = knob(
        0.1, "share of the training set held out; 0 reproduces the paper", FRACTION
    )
    split_seed: int = knob(0, "which examples are held out, whatever the seed", SEED)
    augmentation: str = knob("none", "a key of data.augment.AUGMENTATIONS")
    label_noise: float = knob(0.0, "share of training labels corrupted", within(0, 1))
    noise_kind: str = knob("symmetric", "a key of data.NOISE")
    noise_seed: int = knob(0, "which labels are corrupted, whatever the seed", SEED)
    teacher_neurons: int = knob(200, "hidden neurons of dataset='teacher_student'", WIDTH)
    teacher_scale: float = knob(1 / 3, "factor of the teacher's output", POSITIVE)
    teacher_seed: int = knob(0, "which teacher and examples, whatever the seed", SEED)

    # How long
    batch_size: int = knob(128, "examples a step; the ragged rest of an epoch waits", COUNT)
    num_epochs: int = knob(20, "passes over the training set", COUNT)
    num_train_steps: int = knob(-1, "steps in all; -1: as num_epochs says", COUNT_OR_ALL)
    steps_per_eval: int = knob(
        -1, "batches an evaluation sees; -1: every example, exactly once", COUNT_OR_ALL
    )
    seed: int = knob(0, "initialization, order of the data, dropout, pruning", SEED, swept=True)

    # What becomes of the gradient
    clip_norm: float = knob(0.0, "largest l2 norm of the final gradient; 0: any", at_least(0))
    base_optimizer: str = knob("sgd", "a key of optimizers.BASES: takes the sharp gradient")
    learning_rate: float = knob(
        0.1, "what the schedule's shape is multiplied by", at_least(0), swept=True
    )
    lr_scheduler: str = knob("cosine", "a key of optimizers.SCHEDULES")
    warmup_steps: int = knob(0, "steps of linear warmup from zero", COUNT_OR_NONE)
    momentum: float = knob(0.9, "of sgd", FRACTION)
    nesterov: bool = knob(False, "Nesterov's momentum, for sgd")
    beta1: float = knob(0.9, "decay of Adam's first moment", FRACTION)
    beta2: float = knob(0.999, "decay of Adam's second moment", FRACTION)
    adam_epsilon: float = knob(1e-8, "added to the root of Adam's second moment", POSITIVE)
    weight_decay: float = knob(1e-4, "never part of the ascent", at_least(0), swept=True)
    decay_mode: str = knob(
        "default",
        "coupled: added to the gradient; decoupled: to the update; default: as the base does",
        one_of("default", "coupled", "decoupled"),
    )
    decay_on: str = knob(
        "all",
        "which leaves decay: all (the released program), or kernels",
        one_of("all", "kernels"),
    )

    # Pruning at initialization
    pruner: str = knob("none", "a key of pruning.PRUNERS")
    sparsity: float = knob(0.0, "share of the kernels' weights removed", FRACTION)
    prune_scope: str = knob(
        "default",
        "layer: the same share of each kernel; global: of all; default: as the pruner does",
        one_of("default", "layer", "global"),
    )
    prune_exempt: tuple[str, ...] = knob((), "layers kept dense, by name: Dense_0, conv_init, ...")
    snip_batches: int = knob(1, "batches whose mean gradient SNIP looks at", COUNT)

    # How it is carried out
    half_precision: bool = knob(False, "compute in bfloat16, with float32 parameters")
    micro_batches: int = knob(
        1,
        "parts a batch is computed in, to save memory; the ascent stays the whole batch's",
        COUNT,
    )
    cache: bool = knob(
        True, "keep the data on the device; False: stream it from the host", identity=False
    )
    log_every_steps: int = knob(
        -1,
        "a line of metrics every so many steps; -1: only epochs",
        COUNT_OR_ALL,
        identity=False,
    )
    restore_checkpoint: bool = knob(
        True, "go on where a run stopped; False: move it aside and begin again", identity=False
    )
    checkpoint_seconds: float = knob(
        30.0, "between checkpoints; 0: whenever possible", at_least(0), identity=False
    )
    track: str = knob("none", "a key of training.track.TRACKERS", identity=False)

    def __post_init__(self):
        for field, kind in _TYPES.items():
            value = plain(getattr(self, field), kind)
            if isinstance(value, str):
                value = _OLD_NAMES.get((field, value), value)
            setattr(self, field, value)

    def validate(self) -> "Config":
        """Return ``settled()``, or raise ``ValueError``: the field, its value and what is legal."""
        for field in dataclasses.fields(self):
            value, law = getattr(self, field.name), field.metadata["law"]
            words = misfit(value, _TYPES[field.name])
            if not words and not law.holds(value):
                words = law.words
            if words:
                raise ValueError(f"{field.name}={said(value)}: must be {words}")
        settled = self.settled()
        size, groups = self.batch_size, settled.sam_groups
        if size % groups:
            raise ValueError(f"sam_groups={groups}: must divide batch_size={size}")
        if size // groups % self.micro_batches:
            raise ValueError(
                f"micro_batches={self.micro_batches}: must divide {size // groups}, the examples "
                "that ascend together"
            )
        if self.sparsity and self.pruner == "none":
            raise ValueError(f"sparsity={self.sparsity}: must be 0 where pruner='none'")
        if self.label_smoothing and self.loss != "cross_entropy":
            raise ValueError(
                f"label_smoothing={self.label_smoothing}: must be 0 where loss={self.loss!r}"
            )
        return settled

    def settled(self) -> "Config":
        """The same with the method's own values where -1 asks; a plain gradient has one radius."""
        free = ("rho",) if self.optimizer in PLAIN else ()
        mine = {n: own(n, self.optimizer) for n in OWN if n in free or getattr(self, n) == -1}
        return dataclasses.replace(self, **mine) if mine else self

    @property
    def run_id(self) -> str:
        """The folder of the run: readable words, then a hash of every knob that defines it."""
        return f"{self.title}-{self._digest(lambda knob: knob['identity'])}"

    @property
    def program_id(self) -> str:
        """Equal for configs that one program serves."""
        return self._digest(lambda knob: not knob["swept"])

    def _digest(self, wanted) -> str:
        names = [f.name for f in dataclasses.fields(self) if wanted(f.metadata)]
        settled = self.settled()
        text = json.dumps({name: getattr(settled, name) for name in names}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    @property
    def title(self) -> str:
        """A few words for people: data, network with its size, optimizer, seed."""
        if self.task:
            network = re.sub(r"\W+", ".", self.task)
        else:
            size = self.num_neurons if self.model == "MLP" else (self.num_filters,)
            network = f"{self.dataset}-{self.model}-{'x'.join(map(str, size))[:80]}"
        radius = "" if self.optimizer in PLAIN else f"-rho{self.settled().rho:g}"
        return component(f"{network}-{self.optimizer}{radius}-seed{self.seed}")


def from_mapping(fields: Mapping[str, Any]) -> Config:
    """A ``Config`` from names and values, such as an old ``ConfigDict`` or a ``config.json``."""
    unknown = [name for name in fields if name not in _TYPES]
    if unknown:
        raise ValueError(unknown_knob(unknown[0]))
    return Config(**fields)


def unknown_knob(name: str) -> str:
    """The sentence for a knob that does not exist."""
    return f"{name}: no such knob{meant(name, _TYPES)}"


def choose(field: str, name: str, table: Mapping[str, Any]) -> Any:
    """The entry of a table of choices, or one sentence that lists what is legal."""
    if name not in table:
        choices = ", ".join(sorted(table))
        raise ValueError(f"{field}={name!r}: choose one of {choices}{meant(name, table)}")
    return table[name]


PLAIN = ("sgd", "adam", "adamw")  # optimizers whose gradient is not sharpness-aware
_TYPES = typing.get_type_hints(Config)
_OLD_NAMES = {  # what the released program's config files call the same things
    ("model", "ResNet50_ImageNet"): "ResNet50",
    ("dataset", "imagenet2012"): "imagenet",
    ("lr_scheduler", "imagenet_cosine"): "cosine",
}
