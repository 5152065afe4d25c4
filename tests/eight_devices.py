"""Run by test_devices.py in a process of its own, which has eight devices: every case once.

Prints JSON: case -> the largest relative error against one device, or what was raised.
"""

import json
import re

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from samscale import sharpness
from samscale.flatness import ball, eigenpairs, hessian, moments, probed

METHODS = {
    "sam": {},
    "gsam": {"alpha": 0.4},
    "looksam": {"every": 2},
    "friendly_sam": {"sigma": 0.5},
    "asam": {},
    "wsam": {"gamma": 0.6},
    "usam": {},
    "asam_all": {},
    "layer_sam": {},
    "look_layer_sam": {"every": 2},
    "fisher_sam": {},
    "multistep_sam": {},
    "step_size_sam": {},
    "vasso": {"theta": 0.5},
    "random_sam": {"key": jax.random.key(5)},
}
STATEFUL = ["sam", "looksam", "friendly_sam"]
KINDS = {"Auto": METHODS, "Explicit": STATEFUL}  # axes of a mesh; jax.make_mesh: explicit ones
# shard_map with check_vma True and False; jax.pmap
RUNNERS = {"checked": METHODS, "unchecked": STATEFUL, "pmap": STATEFUL}
PER_DEVICE = {"global": False, "per_device": True}
STEPS = 3


def data():
    key = jax.random.split(jax.random.key(0), 4)
    draw = lambda k, *shape: jax.random.normal(k, shape)
    return {"w": draw(key[0], 3, 4), "v": draw(key[1], 4)}, (draw(key[2], 32, 3), draw(key[3], 32))


def loss(params, batch):
    x, y = batch
    return ((jnp.tanh(x @ params["w"]) @ params["v"] - y) ** 2).mean()


def family(names, groups=1, **how):
    preset = lambda name: sharpness.PRESETS[name](
        jax.value_and_grad(loss), 0.3, **METHODS[name], **how
    )
    return {name: sharpness.grouped(preset(name), groups) for name in names}


def step(gradients):
    """A step of SGD with each of the methods, which are one program: that is compiled faster."""

    def run(params, states, batch):
        found = {}
        for name, gradient in gradients.items():
            w = params[name]
            (_, grads), state, info = gradient.value_and_grad(w, states[name], batch)
            w = jax.tree.map(lambda w, g: w - 0.1 * g, w, grads)
            found[name] = w, state, info.extra
        return found

    return run


def mesh_of(kind):
    return jax.make_mesh((8,), ("d",), axis_types=(AxisType[kind],))


def mapped(runner):
    """From a step to one in which each device has a part of the batch.

    What comes out is said to be the same on all devices; whether it is so is looked at.
    """

    def transform(run):
        def local(*args):
            found = run(*args)
            return found, jax.tree.map(lambda x: x[None], found)

        if runner == "pmap":
            spread = jax.pmap(local, axis_name="d", in_axes=(None, None, 0))
        else:
            specs = {"in_specs": (P(), P(), P("d")), "out_specs": (P(), P("d"))}
            check = runner == "checked"
            spread = jax.jit(jax.shard_map(local, mesh=mesh_of("Auto"), check_vma=check, **specs))

        def call(params, states, batch):
            if runner == "pmap":
                batch = jax.tree.map(lambda a: a.reshape(8, -1, *a.shape[1:]), batch)
            found, each = jax.device_get(spread(params, states, batch))
            jax.tree.map(all_alike, each)
            return jax.tree.map(lambda x: x[0], found) if runner == "pmap" else found

        return call

    return transform


def all_alike(each):
    if not (each == each[:1]).all():
        raise RuntimeError("devices come out with different states")


def trajectory(gradients, batch, transform=jax.jit, place=lambda tree: tree):
    params, _ = data()
    params = place({name: params for name in gradients})
    states = place({name: gradient.init(params[name]) for name, gradient in gradients.items()})
    run, steps = transform(step(gradients)), []
    for _ in range(STEPS):
        found = run(params, states, batch)
        params, states = ({name: f[i] for name, f in found.items()} for i in (0, 1))
        steps.append(found)
    return {name: [found[name] for found in jax.device_get(steps)] for name in gradients}


def error(found, expected):
    worst = 0.0
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        worst = max(worst, float(abs(a - b).max() / max(abs(b).max(), 1e-30)))
    return worst


def compare(measure, expected, names):
    """Name -> error; where the program of all fails, one of each tells whose fault it is."""
    names = list(names)
    try:
        found = measure(names)
        return {name: error(found[name], expected[name]) for name in names}
    except Exception as raised:
        if len(names) == 1:
            return {names[0]: f"{type(raised).__name__}: {str(raised)[:300]}"}
        return {n: e for name in names for n, e in compare(measure, expected, [name]).items()}


def with_an_own_optimizer():
    """bsam and sassha, whose gradients look into their optimizer's state, inside shard_map."""
    params, batch = data()
    one = {"axis_name": "d"}
    names = {
        "bsam": ({"num_examples": 32, "key": jax.random.key(5)}, sharpness.scale_by_bsam()),
        "sassha": ({"key": jax.random.key(5)}, sharpness.scale_by_sassha()),
    }
    errors = {}
    for name, (choices, optimizer) in names.items():
        opt_state = optimizer.init(params)

        def step(params, batch, name=name, choices=choices, opt_state=opt_state, **how):
            vg = jax.value_and_grad(loss)
            gradient = sharpness.PRESETS[name](vg, 0.3, **choices, **how)
            state = gradient.init(params)
            (_, grads), _, info = gradient.value_and_grad(params, state, batch, opt_state=opt_state)
            return grads, info.ascent, info.extra

        specs = {"in_specs": (P(), P("d")), "out_specs": P()}
        local = lambda params, batch, step=step: step(params, batch, **one)
        for check in (True, False):
            spread = jax.jit(jax.shard_map(local, mesh=mesh_of("Auto"), check_vma=check, **specs))
            found = error(jax.device_get(spread(params, batch)), step(params, batch))
            errors[name] = max(found, errors.get(name, 0.0))
    return errors


def all_reduces(per_device):
    params, batch = data()
    (gradient,) = family(["sam"], axis_name="d", per_device=per_device).values()
    run = lambda params, state, batch: gradient.value_and_grad(params, state, batch)[0][1]
    specs = {"in_specs": (P(), P(), P("d")), "out_specs": P()}
    spread = jax.jit(jax.shard_map(run, mesh=mesh_of("Auto"), **specs))
    program = spread.lower(params, gradient.init(params), batch).compile().as_text()
    return len(re.findall(r" all-reduce(?:-start)?\(", program))


def apart_already(checked):
    """Weights that, as far as their types tell, differ along one of two axes already."""
    mesh = jax.make_mesh((2, 4), ("a", "b"), axis_types=(AxisType.Auto,) * 2)

    def transform(run):
        def local(params, states, batch):
            params = jax.tree.map(lambda w: jax.lax.pcast(w, "a", to="varying"), params)
            found = run(params, states, batch)
            one = lambda x: jax.lax.pmean(jax.lax.pmean(x, "a"), "b")
            return jax.tree.map(one, found)

        specs = {"in_specs": (P(), P(), P(("a", "b"))), "out_specs": P()}
        return jax.jit(jax.shard_map(local, mesh=mesh, check_vma=checked, **specs))

    return lambda names: trajectory(family(names, axis_name=("a", "b")), data()[1], transform)


def draws():
    """The random directions of the devices, (8, n), where each ascends alone."""
    params, batch = data()
    gradient = sharpness.random_sam(
        jax.value_and_grad(loss), 0.1, key=jax.random.key(0), axis_name="d", per_device=True
    )

    def local(params, batch):
        _, _, info = gradient.value_and_grad(params, gradient.init(params), batch)
        return jnp.concatenate([e.ravel() for e in jax.tree.leaves(info.ascent)])[None]

    specs = {"in_specs": (P(), P("d")), "out_specs": P("d")}
    return jax.shard_map(local, mesh=mesh_of("Auto"), **specs)(params, batch)


def under_jit(kind, groups):
    mesh = mesh_of(kind)
    batch = jax.device_put(data()[1], NamedSharding(mesh, P("d")))
    place = lambda tree: jax.device_put(tree, NamedSharding(mesh, P()))
    return lambda names: trajectory(family(names, groups), batch, place=place)


def over_devices(runner, per_device, groups=1):
    how = {"axis_name": "d", "per_device": per_device}
    return lambda names: trajectory(family(names, groups, **how), data()[1], mapped(runner))


def flatness(place=lambda batch: batch):
    """Numbers of the Hessian that a batch, wherever it lies, gives."""

    def losses(params, batch):
        x, y = batch
        return (jnp.tanh(x @ params["w"]) @ params["v"] - y) ** 2

    params, batch = data()
    h, key = hessian(losses, params, place(batch)), jax.random.key(1)
    pairs, seen = eigenpairs(h, key, 3, tolerance=1e-9), probed(h, key, 5)
    at = (losses, params, place(batch))
    cubed = jax.jit(lambda op, v: op(v))(moments(*at, (0.0, 1.0, 0.0, 1.0)), jnp.ones(h.size))
    rises = [
        ball.sam_gap(*at, 0.1).rise,
        ball.worst_case(*at, key, 0.1, steps=4).rise,
        ball.average_case(*at, key, radius=0.1).value,
        ball.m_sharpness(*at, 0.1, 4).value,
    ]
    numbers = [jnp.array(x) for x in (seen.trace.value, *rises)]
    return jax.device_get((pairs.values, seen.diagonal, cubed, *numbers))


def main():
    alone = {n: trajectory(family(METHODS, n), data()[1]) for n in (1, 4, 8)}
    alone[16] = trajectory(family(["sam"], 16), data()[1])
    spread = lambda batch: jax.device_put(batch, NamedSharding(mesh_of("Auto"), P("d")))
    found = {"flatness": error(flatness(spread), flatness())}
    for kind, names in KINDS.items():
        for n in (1, 4, 8) if kind == "Auto" else (1,):
            found[f"jit {kind} {n}"] = compare(under_jit(kind, n), alone[n], names)
    for mode, per_device in PER_DEVICE.items():
        found[f"all-reduces {mode}"] = all_reduces(per_device)
        for runner, names in RUNNERS.items():
            expected = alone[8 if per_device else 1]
            found[f"{runner} {mode}"] = compare(over_devices(runner, per_device), expected, names)
    each = jax.device_get(draws())
    found["draws in common"] = int(sum((a == b).all() for a in each for b in each)) - len(each)
    found["own optimizers"] = with_an_own_optimizer()
    two = over_devices("checked", per_device=True, groups=2)
    found["two groups on each"] = compare(two, alone[16], ["sam"])
    for checked in (True, False):
        found[f"two axes {checked}"] = compare(apart_already(checked), alone[1], ["sam"])
    print(json.dumps(found))


if __name__ == "__main__":
    main()
