r"""What a run trains: data, a network and a loss, as pure functions of parameters and a batch."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from samscale import data, labels, losses, models, named, own_task
from samscale.config import Config, choose
from samscale.data import arrays
from samscale.data.augment import AUGMENTATIONS
from samscale.losses import LOSSES, binary_cross_entropy, cross_entropy, means, squared

__all__ = ["LOSSES", "Task", "binary_cross_entropy", "build", "cross_entropy", "means", "squared"]


class Task(NamedTuple):
    """Everything a run needs to know about its problem.

    A *batch* is a dict of arrays with examples along the leading axis; an entry ``weight`` (n,),
    put there by evaluation for padding or by the data themselves, multiplies what an example adds.
    """

    train: Mapping[str, Any]  # arrays of n examples each, such as {"x": ..., "y": ...}
    validation: Mapping[str, Any]  # the same, possibly of no examples
    test: Mapping[str, Any]
    init: Callable  # key -> (params, stats); stats: {} or collections such as batch_stats
    loss: Callable  # (params, stats, batch, key, train) -> (sums, stats); sums holds loss, count
    augment: Callable = lambda key, batch: batch  # of training batches, on the device
    monitor: str = "accuracy"  # which mean chooses the best epoch
    maximize: bool = True
    outputs: Callable | None = None  # (params, stats, batch) -> (n, C), as in evaluation
    criterion: Callable | None = None  # (outputs, batch) -> (n,), what is trained: for curvature
    activations: Callable | None = None  # (params, stats, batch) -> (inputs of ReLUs, features)


def supervised(model, loss, example, normalize=lambda x: x, train_loss=None):
    """``(init, loss)`` of a ``Task``, from a Linen module called as ``module(x, train=...)``.

    ``example``: a batch that shows the shapes. ``train_loss``: another one for training. Both
    passes of a step are given the same ``key``.
    """

    def init(key):
        variables = model.init(key, normalize(example["x"]))
        return variables["params"], {k: v for k, v in variables.items() if k != "params"}

    def batch_loss(params, stats, batch, key, train):
        variables = {"params": params, **stats}
        x = normalize(batch["x"])
        outputs, new = model.apply(
            variables, x, train=train, mutable=list(stats) if train else [], rngs={"dropout": key}
        )
        outputs = outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32))
        weight = batch.get("weight", jnp.ones(len(x), outputs.dtype))
        measure = train_loss or loss if train else loss
        return measure(outputs, batch["y"], weight), (new if train else stats)

    return init, batch_loss


def predictor(model, normalize=lambda x: x):
    """``outputs`` of a ``Task``: those of evaluation, in at least float32."""

    def outputs(params, stats, batch):
        z = model.apply({"params": params, **stats}, normalize(batch["x"]), train=False)
        return z.astype(jnp.promote_types(z.dtype, jnp.float32))

    return outputs


def watcher(model, normalize=lambda x: x):
    """``activations`` of a ``Task``, from a module that sows ``units`` and ``features``."""

    def activations(params, stats, batch):
        x, wanted = normalize(batch["x"]), ["intermediates"]
        variables = {"params": params, **stats}
        _, seen = model.apply(variables, x, train=False, mutable=wanted)
        sown, _ = jax.tree_util.tree_flatten_with_path(seen.get("intermediates", {}))
        found = lambda name: [v for path, v in sown if getattr(path[-2], "key", "") == name]
        if len(found("features")) != 1:
            raise ValueError("activations: the module must sow 'features' once, and 'units'")
        return found("units"), found("features")[0]

    return activations


def check_names(config: Config) -> None:
    """Raises ``ValueError`` for a name that stands in no table; loads nothing."""
    if not config.task:
        choose("loss", config.loss, LOSSES)
        choose("augmentation", config.augmentation, AUGMENTATIONS)
        choose("model", config.model, models.MODELS)
        choose("dataset", config.dataset, data.DATASETS)
        choose("noise_kind", config.noise_kind, data.NOISE)


def build(config: Config) -> Task:
    """The task that a config describes; raises before anything is written."""
    if config.task:
        return _of_the_user(config)
    check_names(config)
    loss, augment = LOSSES[config.loss], AUGMENTATIONS[config.augmentation]
    d = _loaded(data.DATASETS.get(config.dataset), data_knobs(config))
    train_loss = functools.partial(loss, smoothing=s) if (s := config.label_smoothing) else None
    classes = np.issubdtype(d.train["y"].dtype, np.integer)
    _check_fit(config, images=d.train["x"].ndim == 4, classes=classes)
    model = models.build(
        config.model,
        d.num_outputs,
        dtype=jnp.bfloat16 if config.half_precision else None,
        num_neurons=config.num_neurons,
        num_filters=config.num_filters,
        num_blocks=config.num_blocks,
        dropout=config.dropout,
    )
    example = {"x": d.train["x"][:1]}
    task = Task(
        d.train,
        d.validation,
        d.test,
        *supervised(model, loss, example, d.normalize, train_loss),
        augment=lambda key, batch: {**batch, "x": augment(key, batch["x"])},
        monitor="accuracy" if classes else "loss",
        maximize=classes,
        outputs=predictor(model, d.normalize),
        criterion=losses.criterion(config.loss, config.label_smoothing),
        activations=watcher(model, d.normalize),
    )
    if classes:
        try:
            _check_labels(task, "y", d.num_outputs)
        except ValueError as error:
            raise ValueError(f"dataset={config.dataset!r}: {error}") from error
    return task


OF_DATA = (
    "dataset",
    "validation_fraction",
    "split_seed",
    "label_noise",
    "noise_kind",
    "noise_seed",
    "teacher_neurons",
    "teacher_scale",
    "teacher_seed",
)


def data_knobs(config: Config) -> tuple:
    """What the data of a config depend on: equal, and sorted side by side, for equal data."""
    return tuple(getattr(config, name) for name in OF_DATA)


@functools.lru_cache(maxsize=1)  # the programs of a study mostly share their data
def _loaded(reader, values) -> data.Dataset:
    """The data that ``data_knobs`` say, by a ``reader`` that may be replaced under its name."""
    knobs = dict(zip(OF_DATA, values, strict=True))
    return data.load(knobs.pop("dataset"), **knobs)


def _check_fit(config: Config, images: bool, classes: bool):
    """Vectors do not go through convolutions, and numbers have no cross entropy."""
    fitting = ("cross_entropy", "squared") if classes else ("squared",)
    for knob, fits, needed in (
        ("loss", config.loss in fitting, " or ".join(map(repr, fitting))),
        ("model", images or config.model == "MLP", "'MLP'"),
        ("augmentation", images or config.augmentation == "none", "'none'"),
    ):
        if not fits:
            raise ValueError(
                f"{knob}={getattr(config, knob)!r}: must be {needed} for dataset={config.dataset!r}"
            )


def _of_the_user(config: Config) -> Task:
    law = f"task={config.task!r}: must be module:function, returning a samscale.tasks.Task"
    make = named.function(law, config.task)
    try:
        task = make(_Unswept(config))
    except Exception as error:  # of the user's code: whatever it is, in one sentence
        words = " ".join(str(error).split())
        raise ValueError(f"task={config.task!r}: {type(error).__name__}: {words}") from error
    if not isinstance(task, Task):
        raise ValueError(f"{law}, not {type(task).__name__}")
    try:
        task = task._replace(
            **arrays.checked({name: getattr(task, name) for name in arrays.SPLITS})
        )
        _check_functions(task)
        own_task.check_leaves(task, config.batch_size)
    except ValueError as error:
        raise ValueError(f"task={config.task!r}: {error}") from error
    return task


def _check_functions(task: Task):
    """Traces a user's functions, so that what they lack is said before anything is written."""
    sums, given = _traced(task, "train")
    needed = ("loss", "count", task.monitor)  # the last is how a run's result is called
    if not {*needed} <= {*sums}:
        wanted, found = (", ".join(map(repr, names)) for names in (needed, sorted(sums)))
        raise ValueError(
            f"loss must return sums named {wanted} (the last is its monitor), not {found}"
        )
    for split in ("validation", "test"):
        if {*getattr(task, split)} != {*task.train}:
            _traced(task, split)
    for name, classes in given:
        _check_labels(task, name, classes)


def _traced(task: Task, split: str):
    """The sums of one example of a split, and ``(name, classes)`` of every array of it that one of
    ``losses`` is given as labels."""
    example = {name: array[:1] for name, array in getattr(task, split).items()}
    names = []

    def evaluated(key, batch):
        params, stats = task.init(key)
        sums, _ = task.loss(params, stats, batch, key, False)
        names.extend(next((n for n, a in batch.items() if a is y), None) for y, _ in seen)
        return sums

    try:
        with labels.watched() as seen:
            sums = dict(jax.eval_shape(evaluated, jax.random.key(0), example))
    except Exception as error:
        what = "one example" if split == "train" else f"one example of {split}"
        words = " ".join(str(error).split())
        raise ValueError(f"init and loss of {what}: {type(error).__name__}: {words}") from error
    return sums, [(n, found[1]) for n, found in zip(names, seen, strict=True) if n is not None]


def _check_labels(task: Task, name: str, classes: int | None):
    """Raises ``ValueError``, naming split and row, for a label that counts and is none."""
    for split in arrays.SPLITS:
        examples = getattr(task, split)
        y = np.asarray(examples.get(name, ()))
        weight = labels.spread(np.asarray(examples.get("weight", np.ones(len(y)))), y)
        wrong = np.argwhere(labels.illegal(y, classes) & (weight > 0))
        if len(wrong):
            raise ValueError(
                f"{split}[{name!r}]: labels must be {labels.law(classes)}, and that of example "
                f"{wrong[0][0]} is {y[tuple(wrong[0])]}"
            )


class _Unswept:
    """A config as a task may read it: runs that differ in what is swept share one task."""

    def __init__(self, config: Config):
        self._config = config

    def __getattr__(self, name):
        field = Config.__dataclass_fields__.get(name)
        if field is not None and field.metadata["swept"]:
            raise ValueError(
                f"config.{name} is not for a task to read: runs that differ in it share one task"
            )
        return getattr(self._config, name)
