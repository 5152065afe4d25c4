r"""From a config to the gradient of its method: which knob is which choice of which preset.

A preset is given what its signature asks for: knobs of its own, knobs that methods share, and what
only a training step knows (random keys, the number of examples, how a batch is taken apart).
"""

import inspect

import jax
import numpy as np

from samscale import keys, sharpness
from samscale.config import Config
from samscale.sharpness import PRESETS

SHARED = {"every": "sam_every", "steps": "sam_steps", "ord": "sam_norm", "groups": "sam_groups"}
CHOICES = {
    "asam": {"eta": "asam_eta"},
    "fisher_sam": {"eta": "fisher_eta"},
    "gsam": {"alpha": "gsam_alpha"},
    "looksam": {"alpha": "looksam_alpha"},
    "look_layer_sam": {"alpha": "looksam_alpha"},
    "wsam": {"gamma": "wsam_gamma", "clip_norm": "clip_norm"},
    "wsam_coupled": {"gamma": "wsam_gamma"},
    "friendly_sam": {"sigma": "friendly_sigma", "decay": "friendly_decay"},
    "vasso": {"theta": "vasso_theta"},
    "ssam_fisher": {"sparsity": "ssam_sparsity", "samples": "ssam_samples"},
    "ssam_dynamic": {"sparsity": "ssam_sparsity", "drop_rate": "ssam_drop_rate"},
    "esam": {"beta": "esam_beta", "gamma": "esam_gamma"},
}
IN_EVERY_STEP = ("random_sam", "momentum_sam", "bsam")  # whose second gradient is never left out


def is_sharp(config: Config) -> bool:
    return config.optimizer in PRESETS


def wants_losses(config: Config) -> bool:
    """Whether the method looks at the loss of each example."""
    return config.optimizer == "esam" and config.esam_gamma < 1


def check(config: Config) -> None:
    """Raises ``ValueError`` where a knob says something that the method cannot do."""
    name = config.optimizer
    takes = inspect.signature(PRESETS[name]).parameters if is_sharp(config) else ()
    for word, knob, idle in (
        ("steps", "sam_steps", 1),
        ("every", "sam_every", 1),
        ("ord", "sam_norm", "2"),
    ):
        able = word in takes or (word == "every" and takes and name not in IN_EVERY_STEP)
        if not able and getattr(config, knob) != idle:
            raise ValueError(
                f"{knob}={getattr(config, knob)!r}: must be {idle!r} where optimizer={name!r}"
            )
    if float(config.sam_norm) not in (1, 2, float("inf")) and config.sam_steps > 1:
        raise ValueError(f"sam_norm={config.sam_norm!r}: must be 1, 2 or inf where sam_steps > 1")
    follows = _follows(config)
    if config.rho_min and not follows:
        raise ValueError(
            f"rho_min={config.rho_min}: must be 0 unless rho_scheduler='learning_rate' lets the "
            "radius fall"
        )
    if config.rho_min > config.settled().rho:
        raise ValueError(f"rho_min={config.rho_min}: must be at most rho={config.settled().rho}")
    if follows and not is_sharp(config):
        raise ValueError(
            f"rho_scheduler={config.rho_scheduler!r}: must be 'default' where optimizer={name!r}"
        )
    for knob, wrong, legal in (
        ("decay_mode", "decoupled", "coupled"),
        ("decay_on", "kernels", "all"),
    ):
        if name == "bsam" and getattr(config, knob) == wrong:
            raise ValueError(
                f"{knob}={wrong!r}: must be {legal!r} where optimizer='bsam', whose precision "
                "counts the decay of every weight"
            )
    if name == "momentum_sam" and config.base_optimizer == "sgd" and not config.momentum:
        raise ValueError("momentum=0.0: must be greater than 0 where optimizer='momentum_sam'")


def has_own_optimizer(config: Config) -> bool:
    return config.optimizer in ("bsam", "sassha")


def optimizer(config: Config, weight_decay):
    """What the method changes about the optimizer: arguments of ``optimizers.build``."""
    if config.optimizer == "bsam":
        numbers = config.beta1, config.beta2, config.bsam_damping, weight_decay
        return {"direction": sharpness.scale_by_bsam(*numbers)}
    if config.optimizer == "sassha":
        numbers = config.beta1, config.beta2, config.sassha_epsilon, config.sam_every
        mode = "decoupled" if config.decay_mode == "default" else config.decay_mode
        return {"direction": sharpness.scale_by_sassha(*numbers), "mode": mode}
    if config.optimizer == "wsam":
        return {"beside": (sharpness.add_sharpness(),), "clip_norm": 0.0}  # clipped with its term
    return {}


def gradients(config: Config, num_steps: int) -> float:
    """What training costs, in gradients of a batch."""
    if not is_sharp(config):
        return float(num_steps)
    return float(
        sharpness.gradients(
            config.optimizer,
            num_steps,
            every=config.sam_every,
            steps=config.sam_steps,
            gamma=config.esam_gamma,
        )
    )


def maker(config: Config, shape, *, num_steps: int, per_epoch: int, num_examples: int):
    """``make(value_and_grad_fn, knobs, mask=None, losses=None) -> Gradient`` over ``(batch, key)``.

    ``shape``: the learning rate's schedule. ``value_and_grad_fn`` returns, as its ``out``, sums,
    batch statistics, and the loss of each example or None; ``losses``: the last alone.
    """
    parts = {"split": split, "weight": _count, "merge": _merge}
    radius = _radius(config, shape, num_steps)

    def make(value_and_grad_fn, knobs, mask=None, losses=None):
        if not is_sharp(config):
            gradient = sharpness.plain(value_and_grad_fn)
            return sharpness.grouped(gradient, config.sam_groups, **parts)
        preset = PRESETS[config.optimizer]
        takes = inspect.signature(preset).parameters
        knob_of = SHARED | CHOICES.get(config.optimizer, {})
        offered = {
            **{word: getattr(config, knob) for word, knob in knob_of.items()},
            **parts,
            "ord": float(config.sam_norm),
            "refresh": per_epoch if config.ssam_refresh == -1 else config.ssam_refresh,
            "total": num_steps,
            "num_examples": num_examples,
            "key": keys.address(knobs.seed, keys.ASCENT),
            "mask": mask,
            "losses": losses,
            "losses_of": lambda out: out[2],
            "take": _take,
        }
        given = {word: value for word, value in offered.items() if word in takes}
        if "every" not in takes and config.sam_every > 1:
            given["every"] = config.sam_every
        gradient = preset(value_and_grad_fn, radius(knobs.rho), **given)
        if "groups" in takes:
            return gradient
        return sharpness.grouped(gradient, config.sam_groups, **parts)

    return make


def accumulated(value_and_grad_fn, parts: int):
    """``value_and_grad_fn`` over ``(batch, key)``, part after part.

    The few examples that some methods look at beside the batch are computed whole where they
    cannot be cut evenly.
    """
    how = {"split": split, "weight": _count, "merge": _merge}
    in_parts = sharpness.accumulated(value_and_grad_fn, parts, **how)

    def some(params, batch, key):
        even = len(jax.tree.leaves(batch)[0]) % parts == 0
        return (in_parts if even else value_and_grad_fn)(params, batch, key)

    return some if parts > 1 else value_and_grad_fn


def split(args, parts: int):
    """The batch in ``parts``, each with a dropout key of its own."""
    batch, key = args
    cut = lambda a: a.reshape(parts, -1, *a.shape[1:])
    return jax.tree.map(cut, batch), jax.random.split(key, parts)


def _follows(config):
    """Whether the radius falls with the learning rate."""
    default = config.rho_scheduler == "default" and config.optimizer == "gsam"
    return default or config.rho_scheduler == "learning_rate"


def _radius(config, shape, num_steps):
    """From ``rho`` to the radius of a step."""
    if not _follows(config):
        return lambda rho: rho
    ends = np.array([config.warmup_steps, num_steps])  # every schedule peaks where its warmup ends
    peak, end = map(float, np.broadcast_to(shape(ends), 2))
    return lambda rho: sharpness.follow(shape, rho, config.rho_min, peak, end)


def _take(args, rows):
    batch, key = args
    return jax.tree.map(lambda a: a[rows], batch), key


def _count(out):
    return out[0]["count"]


def _merge(outs):
    """Parts of a batch: their sums add, their statistics are averaged, losses stand in a row."""
    sums, stats, losses = outs
    return (
        jax.tree.map(lambda x: x.sum(0), sums),
        jax.tree.map(_average, stats),
        jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), losses),
    )


def _average(x):
    """Of numbers. Counts, switches and random keys have none: all parts began from the same ones,
    and the first part's are taken."""
    return x.mean(0) if jax.dtypes.issubdtype(x.dtype, np.inexact) else x[0]
