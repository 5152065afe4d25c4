r"""Beside pytorch_optimizer: the same trajectories where it is right; elsewhere, what it computes.

In float64, with a base optimizer that has momentum and weight decay, another batch in each step.
"""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from samscale import sharpness
from samscale.sharpness import perturbations
from samscale.sharpness.leaves import absolute
from torch_peers import (
    ADAMW,
    BAYES,
    NO_NOISE,
    RHO,
    SGD,
    STEPS,
    Network,
    adamw,
    bsam_by_hand,
    difference,
    gsam,
    in_one_tensor,
    loss,
    peers,
    problem,
    sgd,
    squared_norm,
    their_bsam,
    torch,
    walk,
    walk_theirs,
    wrapped,
)

ADAM = {"base": torch.optim.AdamW, "settings": ADAMW}
added = sharpness.add_sharpness()
CASES = {  # theirs, ours, the base optimizer of ours
    "SAM": (wrapped(peers.SAM, rho=RHO), lambda f: sharpness.sam(f, RHO), sgd()),
    "SAM, AdamW": (wrapped(peers.SAM, rho=RHO, **ADAM), lambda f: sharpness.sam(f, RHO), adamw()),
    "SAM, adaptive": (
        wrapped(peers.SAM, rho=0.5, adaptive=True),
        lambda f: sharpness.asam_all(f, 0.5),
        sgd(),
    ),
    "GSAM": (gsam(RHO, alpha=0.4), lambda f: sharpness.gsam(f, RHO, alpha=0.4), sgd()),
    "GSAM, adaptive": (
        gsam(RHO, alpha=0.4, adaptive=True),
        lambda f: sharpness.gsam(f, RHO, alpha=0.4, metric=absolute),
        sgd(),
    ),
    "GSAM, cosine": (
        gsam(RHO, 0.02, lambda t: (1 + math.cos(math.pi * t / STEPS)) / 2, alpha=0.4),
        lambda f: sharpness.gsam(
            f, sharpness.follow(optax.cosine_decay_schedule(1.0, STEPS), RHO, 0.02), alpha=0.4
        ),
        sgd(lr=optax.cosine_decay_schedule(SGD["lr"], STEPS)),
    ),
    "WSAM": (
        wrapped(peers.WSAM, rho=RHO, gamma=0.7),
        lambda f: sharpness.wsam(f, RHO, gamma=0.7),
        sgd(added),
    ),
    "WSAM, AdamW": (
        wrapped(peers.WSAM, rho=RHO, gamma=0.7, **ADAM),
        lambda f: sharpness.wsam(f, RHO, gamma=0.7),
        adamw(added),
    ),
    "WSAM, coupled": (
        wrapped(peers.WSAM, rho=RHO, gamma=0.7, decouple=False),
        lambda f: sharpness.wsam_coupled(f, RHO, gamma=0.7),
        sgd(),
    ),
    "FriendlySAM": (
        wrapped(peers.FriendlySAM, rho=RHO),
        lambda f: sharpness.friendly_sam(f, RHO),
        sgd(),
    ),
    "FriendlySAM, sigma": (
        wrapped(peers.FriendlySAM, rho=RHO, sigma=0.8, lmbda=0.7),
        lambda f: sharpness.friendly_sam(f, RHO, sigma=0.8, decay=0.7),
        sgd(),
    ),
}
each_case = pytest.mark.parametrize("case", CASES)
both_ways = pytest.mark.parametrize("foreach", [False, True])  # they have two programs each


@pytest.fixture(autouse=True)
def _one_thread_and_float64():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with jax.enable_x64(True):
        yield
    torch.set_num_threads(threads)


@pytest.fixture
def exact_norms(monkeypatch):
    monkeypatch.setattr(peers.optimizer.sam, "get_global_gradient_norm", squared_norm)


def our_walk(case):
    _, ours, optimizer = CASES[case]
    return walk(ours, optimizer, *problem())


@each_case
def test_we_walk_as_they_do(case):
    # They round the norm of a gradient to float32: an error of 6e-8 in the radius, which 60 steps
    # make 100 times as large.
    theirs, gradients = walk_theirs(CASES[case][0], *problem())
    assert difference(our_walk(case), theirs) < 5e-5
    assert gradients == 2 * STEPS


@each_case
@both_ways
@pytest.mark.usefixtures("exact_norms")
def test_up_to_float64_where_they_neither_round_the_norm_nor_add_to_it(case, foreach):
    epsilon = "eps" if case.startswith("WSAM") else "perturb_eps"
    optimizer_of = functools.partial(CASES[case][0], foreach=foreach, **{epsilon: 0.0})
    theirs, _ = walk_theirs(optimizer_of, *problem())
    assert difference(our_walk(case), theirs) < 1e-11


def test_no_two_of_these_walks_are_alike():
    walks = {case: our_walk(case) for case in CASES}
    for a, b in itertools.combinations(walks, 2):
        assert difference(walks[a], walks[b]) > 0.02, (a, b)


@pytest.mark.parametrize("size, theirs", [(1e20, 0.0), (1.0, RHO), (1e-12, RHO / 2)])
def test_our_radius_does_not_depend_on_the_size_of_the_gradient_and_theirs_does(size, theirs):
    # theirs: rho g / (|g| + 1e-12), with the square of |g| in float32, where 1e40 is infinity
    g = size * np.array([0.6, 0.0, 0.8])
    w = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    w.grad = torch.tensor(g)
    peers.SAM([w], torch.optim.SGD, rho=RHO, lr=0.1).first_step()
    np.testing.assert_allclose(w.detach().norm().item(), theirs, rtol=1e-6)
    ball = perturbations.to_ball(RHO)
    ours, _ = ball.update(jnp.asarray(g), ball.init(g))
    np.testing.assert_allclose(np.linalg.norm(ours), RHO, rtol=1e-14)


def test_their_radius_is_negative_in_a_warmup_below_the_lowest_rate_and_ours_starts_at_its_own():
    base = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.0)
    rates = torch.optim.lr_scheduler.LambdaLR(base, lambda step: 1.0)
    radius = peers.ProportionScheduler(rates, max_lr=0.1, min_lr=0.01, max_value=0.6, min_value=0.0)
    assert radius.step() < -0.06
    warmup = optax.linear_schedule(0.0, 1.0, 10)
    assert sharpness.follow(warmup, 0.6)(0) == 0


LOOK, SLOW = {"rho": RHO, "alpha": 0.7, "k": 5}, 0.02
their_looksam = wrapped(peers.LookSAM, settings=SGD | {"lr": SLOW}, perturb_eps=0.0, **LOOK)


def our_looksam(f):
    return sharpness.looksam(f, RHO, alpha=LOOK["alpha"], every=LOOK["k"])


@both_ways
@pytest.mark.usefixtures("exact_norms")
def test_looksam_walks_as_theirs_where_all_weights_are_one_tensor(foreach):
    params, batches = problem()
    params = in_one_tensor(params)
    theirs, _ = walk_theirs(functools.partial(their_looksam, foreach=foreach), params, batches)
    # theirs: |g| / (|v| + 1e-8), and |v| is about 0.1
    assert difference(walk(our_looksam, sgd(lr=SLOW), params, batches), theirs) < 1e-6


@both_ways
@pytest.mark.usefixtures("exact_norms")
def test_their_looksam_splits_and_rescales_each_tensor_by_itself_not_the_whole(foreach):
    def remember(g, gs):
        return gs - jnp.vdot(gs, g) / jnp.vdot(g, g) * g

    def recall(g, v):
        return g + LOOK["alpha"] * jnp.linalg.norm(g) / (jnp.linalg.norm(v) + 1e-8) * v

    by_tensor = lambda rule: lambda a, b: jax.tree.map(rule, a, b)
    emulated = lambda f: sharpness.sharpness_aware(
        f,
        perturbations.to_ball(RHO),
        every=LOOK["k"],
        reuse=(by_tensor(remember), by_tensor(recall)),
    )
    theirs, _ = walk_theirs(functools.partial(their_looksam, foreach=foreach), *problem())
    assert difference(walk(emulated, sgd(lr=SLOW), *problem()), theirs) < 1e-11
    assert difference(walk(our_looksam, sgd(lr=SLOW), *problem()), theirs) > 0.02


def test_looksam_costs_1_and_1_over_k_gradients_a_step_and_theirs_2():
    calls = []

    def counted(f):
        return lambda *args: (jax.debug.callback(lambda: calls.append(1)), f(*args))[1]

    walk(our_looksam, sgd(lr=SLOW), *problem(), counted)
    jax.effects_barrier()
    assert len(calls) == STEPS + STEPS // LOOK["k"]
    assert walk_theirs(their_looksam, *problem())[1] == 2 * STEPS


def our_bsam(lr=BAYES["lr"], num_examples=NO_NOISE):
    (beta1, beta2), decay = BAYES["betas"], BAYES["weight_decay"]
    scale = sharpness.scale_by_bsam(beta1, beta2, gamma=BAYES["damping"], delta=decay)
    gradient = lambda f: sharpness.bsam(f, RHO, num_examples=num_examples, key=jax.random.key(0))
    return gradient, optax.chain(optax.add_decayed_weights(decay), scale, optax.scale(-lr))


@both_ways
def test_bsam_walks_by_its_formula_and_theirs_by_another(foreach):
    params, batches = problem()
    ours = walk(*our_bsam(), params, batches)
    assert difference(ours, bsam_by_hand(params, batches, theirs=False)) < 1e-11
    theirs, _ = walk_theirs(functools.partial(their_bsam, foreach=foreach), params, batches)
    assert difference(theirs, bsam_by_hand(params, batches, theirs=True)) < 1e-11
    assert difference(theirs, ours) > 0.02


def test_at_rate_zero_bsam_stays_and_theirs_climbs():
    params, batches = problem()
    batches = jax.tree.map(lambda b: np.broadcast_to(b[:1], b.shape).copy(), batches)
    ours = walk(*our_bsam(lr=0.0), params, batches)
    assert difference(ours, params) == 0
    theirs, _ = walk_theirs(functools.partial(their_bsam, lr=0.0), params, batches)
    last, batch = {name: path[-1] for name, path in theirs.items()}, [b[0] for b in batches]
    assert loss(last, *batch) > 2 * loss(params, *batch)


def test_without_weight_decay_their_bsam_never_descends():
    still = functools.partial(their_bsam, rho=0.0, weight_decay=0.0)
    params, batches = problem()
    theirs, _ = walk_theirs(still, params, batches)
    assert difference(theirs, params) < 1e-14


@both_ways
def test_their_bsam_cannot_begin_without_a_gradient_taken_before(foreach):
    optimizer = their_bsam(Network({"all": np.zeros(3)}), foreach=foreach)
    w = optimizer.param_groups[0]["params"][0]
    closure = lambda: (w**2).sum().backward()
    with pytest.raises((RuntimeError, KeyError)):
        optimizer.step(closure)


def test_the_noise_of_bsam_has_variance_1_over_n_s_and_theirs_its_square():
    n, w = 100, np.zeros(10_000)
    gradient, optimizer = our_bsam(num_examples=n)
    seen = gradient(lambda w: (w, jnp.ones_like(w)))  # what is reported: where it looked
    start = jnp.asarray(w)
    (out, _), _, info = seen.value_and_grad(start, seen.init(w), opt_state=optimizer.init(start))
    np.testing.assert_allclose(np.std(out), n**-0.5, rtol=0.05)
    np.testing.assert_allclose(info.out, np.full(w.size, RHO), rtol=1e-12)  # from w, not from there
    net = Network({"all": w})
    optimizer, points = their_bsam(net, num_data=n), []

    def closure():
        points.append(net.all.detach().numpy().copy())
        net.all.grad = torch.ones_like(net.all)

    net.all.grad = torch.zeros_like(net.all)  # its state begins only where a gradient is
    optimizer.step(closure)
    np.testing.assert_allclose(np.std(points[0]), n**-1.0, rtol=0.05)
    np.testing.assert_allclose(points[1] - points[0], RHO, rtol=1e-12)
