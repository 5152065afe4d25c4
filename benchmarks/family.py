"""What each method of the family costs beside SGD, next to what its documentation says.

Time: steps of one compiled epoch, each method in turn with SGD. A gradient of a step is what SGD's
takes; the rest of a step (the optimizer's update, the data) is done once, so that a method may come
out below its cost. Methods of groups of the batch are held against SGD in as many groups, whose
products are smaller and slower; the ratio to SGD of the whole batch stands beside it. Memory:
temporary, of the compiled program, in copies of the parameters.
"""

import contextlib
import dataclasses
import itertools
import os

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.cost import RESNET, memory
from benchmarks.mlp import MNIST
from benchmarks.timing import Row, best, epoch
from samscale import sharpness
from samscale.sharpness import PRESETS
from samscale.sharpness.perturbations import to_ball
from samscale.training.compiled import Compiled

AIMS = {"looksam": 1.35, "periodic_sam": 1.2, "random_sam": 1.1, "momentum_sam": 1.1}  # k = 5, 10
MARGIN = 1.1
SGD = optax.sgd(0.1, momentum=0.9)


def rows():
    mlp = dataclasses.replace(MNIST, num_neurons=(1200, 400), sam_groups=-1, rho=-1.0)
    yield from _peers(mlp, 20)
    # whole periods of all methods, so that every round has its share of full steps
    yield from _family(mlp, "MLP [1200, 400]", 20, rounds=5)
    yield from _family(dataclasses.replace(RESNET, sam_groups=-1, rho=-1.0), "ResNet18 16", 10, 3)


def _peers(config, count, batch=128):
    """SAM steps on one batch: ours, optax's, and, where it is installed, pytorch_optimizer's."""
    sizes = (784, *config.num_neurons, 10)
    key = jax.random.key(0)
    x, y = jax.random.normal(key, (batch, sizes[0])), jnp.arange(batch) % sizes[-1]
    shapes = list(itertools.pairwise(sizes))
    params = [(jax.random.normal(key, s) / s[0] ** 0.5, jnp.zeros(s[1])) for s in shapes]
    programs = {
        "ours": _steps(sharpness.as_optax(SGD, to_ball(0.05)), params, x, y, count),
        "optax": _steps(
            optax.contrib.sam(
                SGD, optax.chain(optax.contrib.normalize(), optax.sgd(0.05)), opaque_mode=True
            ),
            params,
            x,
            y,
            count,
        ),
    }
    with contextlib.suppress(ImportError):
        programs["pytorch_optimizer"] = _torch_steps(sizes, np.asarray(x), np.asarray(y), count)
    seconds = best(programs, rounds=7)
    for name in list(programs)[1:]:
        yield Row(
            f"SAM on MLP {list(config.num_neurons)}: ours / {name}",
            seconds["ours"] / seconds[name],
            f"{1e3 * seconds['ours'] / count:.2f} ms against "
            f"{1e3 * seconds[name] / count:.2f} ms a step",
        )
    if "pytorch_optimizer" not in programs:
        print("PyTorch or pytorch_optimizer is not installed here: no row compares SAM with it")


def _steps(optimizer, params, x, y, count):
    def loss(params):
        h = x
        for w, b in params[:-1]:
            h = jax.nn.relu(h @ w + b)
        (w, b) = params[-1]
        return optax.softmax_cross_entropy_with_integer_labels(h @ w + b, y).mean()

    @jax.jit
    def run(params):
        def body(_, carry):
            params, state = carry
            grad_fn = lambda p, i: jax.grad(loss)(p)
            grads = jax.grad(loss)(params)
            updates, state = optimizer.update(grads, state, params, grad_fn=grad_fn)
            return optax.apply_updates(params, updates), state

        return jax.lax.fori_loop(0, count, body, (params, optimizer.init(params)))

    jax.block_until_ready(run(params))
    return lambda: jax.block_until_ready(run(params))


def _torch_steps(sizes, x, y, count):
    import torch
    from pytorch_optimizer import SAM

    torch.set_num_threads(os.cpu_count())
    layers = [
        m for a, b in itertools.pairwise(sizes) for m in (torch.nn.Linear(a, b), torch.nn.ReLU())
    ]
    model = torch.nn.Sequential(*layers[:-1])
    x, y = torch.tensor(x), torch.tensor(y, dtype=torch.long)
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.05, lr=0.1, momentum=0.9)

    def closure():
        value = torch.nn.functional.cross_entropy(model(x), y)
        value.backward()
        return value

    def run():
        for _ in range(count):
            closure()
            optimizer.step(closure)
            optimizer.zero_grad()

    run()
    return run


def _family(config, title, count, rounds):
    names = list(PRESETS)
    if config.model == "MLP":
        names.remove("sam_on")  # nothing to perturb
    sgd = dataclasses.replace(config, optimizer="sgd").validate()
    plain = Compiled(sgd)
    steps, (base, size) = epoch(plain, sgd, count), memory(plain, sgd)
    for name in names:
        own = dataclasses.replace(config, optimizer=name).validate()
        machine = Compiled(own)
        documented = machine.program.gradients(count) / count
        programs = {"sgd": steps, "own": epoch(machine, own, count)}
        against, beside = "sgd", ""
        if own.sam_groups > 1:
            parts = dataclasses.replace(sgd, sam_groups=own.sam_groups)
            against = "parts"
            programs[against] = epoch(Compiled(parts), parts, count)
        seconds = best(programs, rounds)
        if against == "parts":
            beside = f"{seconds['own'] / seconds['sgd']:.2f} of SGD; "
        temporary, _ = memory(machine, own)
        yield Row(
            f"{title}: {name} / SGD" + (f" in {own.sam_groups} groups" if beside else ""),
            seconds["own"] / seconds[against],
            f"documented {documented:.2f} gradients; {beside}"
            f"{1e3 * seconds['own'] / count:.2f} ms a step; "
            f"memory + {(temporary - base) / size:.1f} parameters",
            at_most=AIMS.get(name, round(MARGIN * documented, 2)),
        )
        del machine
        jax.clear_caches()  # compiled code of all methods at once exceeds a process's mappings
