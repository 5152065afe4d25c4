"""The flatness of a run: where its state stands, as a point that ``samscale.flatness`` measures."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from samscale import keys, pruning, tasks
from samscale.config import PLAIN, Config, choose
from samscale.flatness.measures import MEASURES, Point, measured
from samscale.flatness.remarks import is_of_the_theorem
from samscale.tasks import Task
from samscale.training import checkpoint, files, program, record, snapshots
from samscale.training import folder as run_folder
from samscale.training.step import Knobs, State


def load(folder) -> tuple[Config, Task, State]:
    """The config, task and saved state of a run folder, finished or not.

    Raises ``ValueError`` where it is none or its data are absent, ``Damaged``.
    """
    path = pathlib.Path(folder)
    if not run_folder.is_run(path):
        raise ValueError(f"run={str(folder)!r}: must be a run folder, with a config.json")
    config = run_folder.config(path).validate()
    done = record.is_done(path)
    if not done and not (path / checkpoint.NAME).exists():
        raise ValueError(f"run={str(folder)!r}: must have a checkpoint; nothing was saved yet")
    task = tasks.build(config)
    p = program.build(config, task)
    order = jax.eval_shape(p.order, Knobs.of(config), 0)
    like = jax.eval_shape(p.init, Knobs.of(config), dict(task.train), order)
    state = checkpoint.restore_state(path, like)
    if done and int(state.step) != (last := record.end(path)["step"]):
        reason = f"it is of step {int(state.step)}, though the run ended at {last}"
        raise files.damaged(path / checkpoint.NAME, reason, checkpoint.REMEDY)
    return config, task, state


def of_run(folder, examples: int = 1000, seed: int = 0) -> tuple[Config, State, Point]:
    """What ``load`` gives, as a point. Raises as ``load`` does."""
    config, task, state = load(folder)
    per_epoch = len(next(iter(task.train.values()))) // config.batch_size
    epoch = -(-int(state.step) // per_epoch)
    here = point(config, task, state, examples, seed)
    return config, state, here._replace(before=before(folder, epoch, state))


def check(config: Config) -> None:
    """Raises ``ValueError`` for measures that do not exist."""
    for name in config.flatness_measures:
        choose("flatness_measures", name, MEASURES)


def at_epoch(
    folder, config: Config, task: Task, state: State, epoch: int, last: bool
) -> dict[str, float]:
    """What is due at the end of an epoch, as ``flatness_NAME``; often nothing."""
    every = config.flatness_every
    if not every or (epoch % every and not last):
        return {}
    here = point(config, task, state, config.flatness_examples)
    here = here._replace(before=before(folder, epoch, state))
    found = measured(here, keys.address(0, keys.MEASURE, 1), config.flatness_measures)
    n = len(next(iter(here.data.values())))
    return {f"flatness_{name}": value for name, value in {"examples": n, **found}.items()}


def before(folder, epoch: int, state: State):
    """The parameters at the end of the epoch before this one; None where they were not kept."""
    found = snapshots.load(folder, epoch - 1, state.params)
    return None if found is None else pruning.apply(state.mask, found)


def point(config: Config, task: Task, state: State, examples: int = 1000, seed: int = 0) -> Point:
    """A state on ``examples`` of the training data (0: all), drawn by ``seed``, not augmented.

    The loss is the trained one, as in evaluation: no dropout, running batch statistics, no weight
    decay, in float32 whatever it was trained in; pruned weights do not count. The radius is
    ``flatness_rho``, the same for all runs, so that they can be compared.
    """
    if config.half_precision:  # its parameters are float32, and curvature cancels in bfloat16
        task = _in_float32(tuple(dataclasses.asdict(config).items()))
    n = len(next(iter(task.train.values())))
    rows = jax.random.permutation(keys.address(seed, keys.MEASURE), n)[: examples or n]
    data = {name: jnp.asarray(a)[rows] for name, a in task.train.items()}
    share = len(rows) / _count(task.loss, state.params, state.stats, data)  # labels are not rows
    outputs = criterion = None
    if task.outputs and task.criterion and "weight" not in data and share == 1:
        outputs = Partial(_Outputs(task.outputs), state.stats, state.mask)
        criterion = task.criterion
        losses = Partial(_Criterion(task.outputs, criterion), state.stats, state.mask)
    else:
        losses = Partial(_Losses(task.loss), state.stats, state.mask, share)
    activations = start = None
    if task.activations:
        activations = Partial(_Outputs(task.activations), state.stats, state.mask)
        params, stats = program.initial(config, task, config.seed)
        start = Partial(_Outputs(task.activations), stats, state.mask, params)
    return Point(
        losses,
        state.params,
        data,
        outputs,
        criterion,
        state.mask,
        activations,
        start,
        rho=config.flatness_rho,
        batch_size=min(config.batch_size, len(next(iter(data.values())))),
        learning_rate=config.learning_rate,
        train_rho=0.0 if config.optimizer in PLAIN else config.settled().rho,
        unlike="" if is_of_the_theorem(config.optimizer) else config.optimizer,
        aside=tuple(_aside(config)),
    )


@functools.lru_cache(maxsize=1)  # one task, so that the epochs of a run share their programs
def _in_float32(fields) -> Task:
    return tasks.build(Config(**{**dict(fields), "half_precision": False}))


def _aside(config):
    """What linear stability knows nothing of, in words."""
    if config.optimizer in ("adam", "adamw") or config.base_optimizer != "sgd":
        yield "adaptive steps"
    elif config.momentum:
        yield f"momentum {config.momentum:g}"
    if config.weight_decay:
        yield f"weight decay {config.weight_decay:g}"
    if config.lr_scheduler != "constant" or config.warmup_steps:
        yield "the rate's schedule"


def unmasked(losses: Partial) -> Partial:
    """The losses of a ``point`` of parameters whose pruned weights are 0, wherever they are."""
    stats, mask, *more = losses.args
    return Partial(losses.func, stats, jax.tree.map(jnp.ones_like, mask), *more)


@dataclasses.dataclass(frozen=True)  # equal for one task, so that its states share programs
class _Outputs:
    outputs: Callable

    def __call__(self, stats, mask, params, batch):
        return self.outputs(pruning.apply(mask, params), stats, batch)


@dataclasses.dataclass(frozen=True)
class _Criterion:
    outputs: Callable
    criterion: Callable

    def __call__(self, stats, mask, params, batch):
        return self.criterion(self.outputs(pruning.apply(mask, params), stats, batch), batch)


@dataclasses.dataclass(frozen=True)
class _Losses:
    """Of any task: the derivative of its sum by the weight of each example."""

    loss: Callable

    def __call__(self, stats, mask, share, params, batch):
        """``share``: examples per unit of count, so that the mean is that of training."""

        def total(weight):
            weighed = {**batch, "weight": weight}
            sums, _ = self.loss(
                pruning.apply(mask, params), stats, weighed, jax.random.key(0), False
            )
            return sums["loss"]

        n = len(next(iter(batch.values())))
        weight = batch.get("weight", jnp.ones(n))
        return share * weight * jax.grad(total)(weight)


@functools.partial(jax.jit, static_argnums=0)
def _count(loss, params, stats, data):
    return loss(params, stats, data, jax.random.key(0), False)[0]["count"]
