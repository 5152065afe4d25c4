"""The composition root: a config and a task become pure functions, ready to jit, scan and map."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from samscale import kernels, keys, optimizers, pruning, sharpness
from samscale.config import Config, choose
from samscale.laws import MOST
from samscale.sharpness import leaves
from samscale.tasks import Task, means
from samscale.training import method
from samscale.training.step import Knobs, State, make_advance, make_evaluate, make_step


class Program(NamedTuple):
    """A config as pure functions, to be jitted and mapped. ``examples``: as ``Task.train``."""

    steps_per_epoch: int
    num_steps: int
    gradients: Callable  # steps -> gradients of a batch that they cost
    init: Callable  # (knobs, examples, order) -> State
    order: Callable  # (knobs, epoch) -> (steps_per_epoch, batch_size) indices
    advance: Callable  # (state, examples, order, first, count, knobs) -> (State, infos)
    evaluate: Callable  # (params, stats, batches) -> sums

    @property
    def num_epochs(self) -> int:
        """The last, which may be a part, counted as one."""
        return -(-self.num_steps // self.steps_per_epoch)


def build(config: Config, task: Task) -> Program:
    """Raises ``ValueError``, naming field and value, where the config does not fit the task."""
    config = config.settled()
    _check_choices(config)
    num_examples = len(next(iter(task.train.values())))
    if num_examples < config.batch_size:
        raise ValueError(
            f"batch_size={config.batch_size}: must be at most {num_examples}, the training examples"
        )
    _check_exempt(config, task)
    _check_leaves(config, task)
    per_epoch = num_examples // config.batch_size
    num_steps = config.num_train_steps
    if num_steps == -1:
        num_steps = config.num_epochs * per_epoch
    if num_steps > MOST:
        raise ValueError(
            f"num_epochs={config.num_epochs}: must be at most {MOST // per_epoch}: an epoch has "
            f"{per_epoch} steps, which are counted in int32"
        )
    if config.pruner == "snip" and config.snip_batches > per_epoch:
        raise ValueError(
            f"snip_batches={config.snip_batches}: must be at most {per_epoch}, those of an epoch"
        )
    if config.warmup_steps >= num_steps:
        raise ValueError(
            f"warmup_steps={config.warmup_steps}: must be less than the {num_steps} training steps"
        )

    def order(knobs, epoch):
        key = keys.address(knobs.seed, keys.ORDER, epoch)
        shuffled = jax.random.permutation(key, num_examples)
        return shuffled[: per_epoch * config.batch_size].reshape(per_epoch, config.batch_size)

    make_optimizer = _optimizer(config, num_steps)
    shape = optimizers.schedule(config.lr_scheduler, num_steps, config.warmup_steps)
    sizes = {"num_steps": num_steps, "per_epoch": per_epoch, "num_examples": num_examples}
    make_gradient = method.maker(config, shape, **sizes)
    step = make_step(
        task,
        make_gradient,
        make_optimizer,
        micro_batches=config.micro_batches,
        per_example=method.wants_losses(config),
    )

    def init(knobs, examples, order):
        params, stats = initial(config, task, knobs.seed)
        mask = _mask(config, task, params, stats, knobs, examples, order)
        params = pruning.apply(mask, params)
        opt_state = make_optimizer(knobs).init(params)
        gradient = make_gradient(None, knobs)
        start = jnp.zeros((), jnp.int32)
        return State(start, params, stats, opt_state, gradient.init(params), mask)

    gradients = functools.partial(method.gradients, config)
    return Program(
        per_epoch, num_steps, gradients, init, order, make_advance(step), make_evaluate(task)
    )


def _check_choices(config: Config):
    choose("optimizer", config.optimizer, {**optimizers.BASES, **sharpness.PRESETS})
    choose("base_optimizer", config.base_optimizer, optimizers.BASES)
    choose("lr_scheduler", config.lr_scheduler, optimizers.SCHEDULES)
    choose("pruner", config.pruner, pruning.PRUNERS)
    complete = not method.is_sharp(config) or method.has_own_optimizer(config)
    if complete and config.base_optimizer != "sgd":
        raise ValueError(
            f"base_optimizer={config.base_optimizer!r}: must be left alone where optimizer="
            f"{config.optimizer!r} is a base optimizer itself"
        )
    method.check(config)


def _check_exempt(config: Config, task: Task):
    if config.prune_exempt:
        paths = jax.tree_util.tree_leaves_with_path(_shapes(task))
        layers = {name for path, _ in paths for name in kernels.names(path)[:-1]}
        for name in config.prune_exempt:
            choose("prune_exempt", name, dict.fromkeys(layers))


def _check_leaves(config: Config, task: Task):
    """For methods and knobs that know leaves by their names."""
    for knob, needs in (
        ("sparsity", config.sparsity > 0),
        ("decay_on", config.decay_on == "kernels"),
        ("init_scale", config.init_scale != 1),
    ):
        if needs and not any(jax.tree.leaves(kernels.kernels(_shapes(task)))):
            raise ValueError(
                f"{knob}={getattr(config, knob)!r}: must be left alone where no parameter is a "
                "kernel, a leaf called 'kernel', or 'weight' or 'w' of two axes or more"
            )
    where = {"sam_on": leaves.normalization, "asam": leaves.kernels}.get(config.optimizer)
    if where is not None:
        try:
            where(_shapes(task))
        except ValueError as error:
            raise ValueError(f"optimizer={config.optimizer!r}: {error}") from error


def _shapes(task: Task):
    """Its parameters, abstract."""
    return jax.eval_shape(task.init, jax.random.key(0))[0]


def initial(config: Config, task: Task, seed):
    """``(params, stats)`` that a run begins with, before it is pruned."""
    params, stats = jax.tree.map(_strong, task.init(keys.address(seed, keys.INIT)))
    if config.init_scale != 1:
        params = _scaled(params, config.init_scale)
    return params, stats


def _strong(leaf):
    """An array of a dtype of its own, not of one that gives way to others: a run that goes on from
    a file begins with such, and must compute the same."""
    if jax.dtypes.issubdtype(jax.typeof(leaf).dtype, jax.dtypes.extended):
        return leaf
    return jnp.asarray(leaf, jnp.result_type(leaf))


def _scaled(params, factor):
    """Kernels times ``factor``; biases and the scales of normalization stay."""
    is_kernel = kernels.kernels(params)
    return jax.tree.map(lambda w, kernel: factor * w if kernel else w, params, is_kernel)


def _optimizer(config: Config, num_steps: int):
    base = config.base_optimizer if method.is_sharp(config) else config.optimizer
    shape = optimizers.schedule(config.lr_scheduler, num_steps, config.warmup_steps)

    numbers = {
        "mode": config.decay_mode,
        "on": config.decay_on,
        "clip_norm": config.clip_norm,
        "momentum": config.momentum,
        "nesterov": config.nesterov,
        "beta1": config.beta1,
        "beta2": config.beta2,
        "adam_epsilon": config.adam_epsilon,
    }

    def make(knobs: Knobs):
        decay = knobs.weight_decay
        changed = numbers | method.optimizer(config, decay)
        return optimizers.build(base, knobs.learning_rate, shape, weight_decay=decay, **changed)

    return make


def _mask(config: Config, task: Task, params, stats, knobs: Knobs, examples, order):
    pruner = pruning.PRUNERS[config.pruner]
    if pruner is None or config.sparsity == 0:
        return None

    def gradient():
        """Of the mean loss over the first ``snip_batches`` batches, not augmented."""

        def loss(params, rows):
            batch = jax.tree.map(lambda a: a[rows], examples)
            key = keys.address(knobs.seed, keys.PRUNE, 1)
            return means(task.loss(params, stats, batch, key, True)[0])["loss"]

        if len(order) < config.snip_batches:
            raise ValueError(
                f"snip_batches={config.snip_batches}: must be at most {len(order)}, those that are "
                "in memory at a time, where cache=False"
            )
        batches = order[: config.snip_batches]
        grads = jax.lax.map(lambda rows: jax.grad(loss)(params, rows), batches)
        return jax.tree.map(lambda g: g.mean(0), grads)

    scores = pruner.score(keys.address(knobs.seed, keys.PRUNE), params, gradient)
    scope = pruner.scope if config.prune_scope == "default" else config.prune_scope
    return pruning.make_mask(scores, config.sparsity, scope, config.prune_exempt)
