"""What measuring flatness costs: products at the floor of their matrix products, few of them.

The network is 784-300-100-10, ReLU, cross entropy, on 1,000 normal inputs with random labels, at
its initialization: any spectrum serves, and none needs data; but for measures, which are those of a
run of MNIST after three epochs. PyHessian's and
hessian-eigenthings' power iteration and Lanczos with one orthogonalization are what ours is held
against, as algorithms: products counted, in one run.
"""

import functools
import time
from itertools import pairwise

import jax
import jax.numpy as jnp

from benchmarks.mlp import MNIST
from benchmarks.timing import Row, best, epoch, matmul
from samscale import losses
from samscale.flatness import (
    MEASURES,
    estimates,
    krylov,
    lanczos,
    measured,
    operators,
    stability,
)
from samscale.training import measured as runs
from samscale.training.compiled import Compiled

SIZES, EXAMPLES, PRODUCTS = (784, 300, 100, 10), 1000, 80
KEY = jax.random.key(0)


def outputs(params, batch):
    x = batch["x"]
    for i, (w, b) in enumerate(params):
        x = (jax.nn.relu(x) if i else x) @ w + b[None]
    return x


def each(params, batch):
    return losses.exact_cross_entropy(outputs(params, batch), batch)


def network(sizes=SIZES):
    """Parameters and data."""
    keys = iter(jax.random.split(KEY, 9))
    uniform = lambda shape, bound: jax.random.uniform(
        next(keys), shape, minval=-bound, maxval=bound
    )
    params = [(uniform((a, b), a**-0.5), uniform((b,), a**-0.5)) for a, b in pairwise(sizes)]
    x = jax.random.normal(next(keys), (EXAMPLES, sizes[0]))
    return params, {"x": x, "y": jax.random.randint(next(keys), (EXAMPLES,), 0, sizes[-1])}


def rows():
    params, data = network()
    h = operators.hessian(each, params, data)
    yield from _products(h)
    yield from _power_iteration(h)
    yield _memory()
    yield from _moments(params, data)
    yield from _beside_an_epoch()


@jax.jit
def _loop(op, v):
    """``PRODUCTS`` in a row, each of the one before."""
    again = lambda _, v: (w := op(v)) / jnp.linalg.norm(w)
    return jax.lax.fori_loop(0, PRODUCTS, again, v)


def _products(h):
    v = jnp.ones(h.size)
    product, operations = matmul()
    ready = lambda x: jax.block_until_ready(x)
    programs = {
        "matmul": product,
        "loop": lambda: ready(_loop(h, v)),
        "probes": lambda: estimates.probed(h, KEY, PRODUCTS),
        "lanczos": lambda: lanczos.tridiagonal(h, v, PRODUCTS),
    }
    for run in programs.values():
        run()
    seconds = best(programs, rounds=5)
    rate = operations / seconds["matmul"]
    inner = sum((6 if i else 2) * a * b for i, (a, b) in enumerate(pairwise(SIZES)))
    floor = 2 * EXAMPLES * inner / rate
    one = seconds["loop"] / PRODUCTS
    yield Row(
        "Hessian product in a loop / its matrix products at full speed",
        one / floor,
        f"{1e3 * one:.2f} ms against {1e3 * floor:.2f} ms at {rate / 1e9:.0f} GFLOP/s",
    )
    yield Row(
        f"{PRODUCTS} probes (trace, Frobenius norm and diagonal) / {PRODUCTS} products",
        seconds["probes"] / seconds["loop"],
        f"{seconds['probes']:.2f} s against {seconds['loop']:.2f} s",
        at_most=1.2,
    )
    yield Row(
        f"{PRODUCTS} Lanczos steps, kept orthogonal / {PRODUCTS} products",
        seconds["lanczos"] / seconds["loop"],
        f"{seconds['lanczos']:.2f} s against {seconds['loop']:.2f} s",
        at_most=1.5,
    )


def _power_iteration(h):
    """Products until the largest eigenvalue is as near as Lanczos comes; and its usual stop."""
    exact = float(krylov.eigenpairs(h, KEY, tolerance=1e-6).values[0])
    found = krylov.eigenpairs(h, KEY, tolerance=1e-1)
    error = abs(float(found.values[0]) - exact) / exact
    v, values = jax.random.normal(KEY, (h.size,)), []
    product = jax.jit(lambda op, v: op(v))
    while len(values) < 300 and (not values or abs(values[-1] - exact) > error * exact):
        v = v / jnp.linalg.norm(v)
        w = product(h, v)
        values.append(float(v @ w))
        v = w
    yield Row(
        "largest eigenvalue, at equal true error: products of Lanczos / of power iteration",
        (found.products - 1) / len(values),
        f"{found.products - 1} (one more tells the residual) against {len(values)}, both within "
        f"{100 * error:.2g} %",
        at_most=0.7,
    )


def _memory():
    """Of inputs so many that examples, which are data, are few beside the parameters."""
    params, data = network((16 * SIZES[0], *SIZES[1:]))
    h = operators.hessian(each, params, data)
    basis = lanczos.start(h, jnp.ones(h.size), PRODUCTS)
    programs = (
        lanczos.extend.lower(basis, h, KEY, 0, PRODUCTS),
        estimates._probe.lower(h, KEY, 10_000, 0.0),
    )
    analyses = [program.compile().memory_analysis() for program in programs]
    copies, probes = (a.temp_size_in_bytes / (4 * h.size) for a in analyses)
    return Row(
        "Lanczos: temporary memory beyond the basis, in copies of the parameters",
        copies,
        f"of {h.size:,} parameters, whatever {EXAMPLES:,} examples need included; 10,000 probes: "
        f"{probes:.1f}",
        at_most=3,
    )


def _moments(params, data):
    for k in (2, 3, 4):
        start = time.perf_counter()
        found = stability.non_uniformity(each, params, data, KEY, k)
        yield Row(
            f"s{k} of {EXAMPLES:,} examples, exact Hessians: seconds, compilation included",
            time.perf_counter() - start,
            f"s{k} = {found.value:.4g}, {found.products} products",
            at_most=30,
        )


def _beside_an_epoch():
    """Each measure of a run at its defaults, beside an epoch of it."""
    machine = Compiled(MNIST)
    train = epoch(machine, MNIST)
    before, state = (jax.tree.map(jnp.copy, train()) for _ in range(2))
    seconds = best({"epoch": train}, rounds=3)["epoch"]
    point = runs.point(MNIST, machine.task, state)._replace(before=before.params)
    for name in MEASURES:
        measure = functools.partial(measured, point, KEY, [name])
        assert measure(), f"measure {name!r} found nothing"
        took = best({name: measure}, rounds=3)[name]
        yield Row(
            f"measure {name!r} / an epoch of MNIST, MLP [300, 100] with SAM",
            took / seconds,
            f"{took:.2f} s against {seconds:.2f} s, compiled",
            at_most=1,
        )
