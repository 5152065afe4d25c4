r"""One small network and its training, in JAX by us and in PyTorch by pytorch_optimizer.

Whoever imports this is skipped where torch or pytorch_optimizer is absent.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

absent = "needs torch and pytorch_optimizer: pip install torch 'pytorch-optimizer>=4.1'"
torch = pytest.importorskip("torch", reason=absent)
peers = pytest.importorskip("pytorch_optimizer", reason=absent)

STEPS, RHO = 60, 0.1
SGD = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}
ADAMW = {"lr": 0.01, "weight_decay": 0.01}


class Network(torch.nn.Module):
    def __init__(self, params):
        super().__init__()
        for name, value in params.items():
            self.register_parameter(name, torch.nn.Parameter(torch.tensor(value)))

    def forward(self, x):
        p = parts(dict(self.named_parameters()))
        return torch.tanh(x @ p["w"] + p["b"]) @ p["v"]


def loss(params, x, y):
    p = parts(params)
    return jnp.mean((jnp.tanh(x @ p["w"] + p["b"][None]) @ p["v"] - y) ** 2)


def parts(params):
    """The same network may keep its weights in one tensor, ``all``."""
    if "all" not in params:
        return params
    flat = params["all"]
    return {"w": flat[:12].reshape(3, 4), "b": flat[12:16], "v": flat[16:]}


def problem(steps=STEPS):
    """Weights, and a batch for each step."""
    draw = np.random.default_rng(0).normal
    params = {"w": draw(size=(3, 4)), "b": draw(size=4), "v": draw(size=4)}
    return params, (draw(size=(steps, 8, 3)), draw(size=(steps, 8)))


def in_one_tensor(params):
    return {"all": np.concatenate([params[name].ravel() for name in "wbv"])}


def sgd(*before_rate, lr=SGD["lr"]):
    decay, trace = optax.add_decayed_weights(SGD["weight_decay"]), optax.trace(SGD["momentum"])
    return optax.chain(decay, trace, *before_rate, optax.scale_by_learning_rate(lr))


def adamw(*before_rate):
    adam, decay = optax.scale_by_adam(), optax.add_decayed_weights(ADAMW["weight_decay"])
    return optax.chain(adam, decay, *before_rate, optax.scale_by_learning_rate(ADAMW["lr"]))


def walk(gradient_of, optimizer, params, batches, counted=lambda f: f):
    """The weights after each step of ours."""
    gradient = gradient_of(counted(jax.value_and_grad(loss)))
    optimizer = optax.with_extra_args_support(optimizer)

    def step(carry, batch):
        params, state, inner = carry
        (_, grads), state, info = gradient.value_and_grad(params, state, *batch, opt_state=inner)
        updates, inner = optimizer.update(grads, inner, params, **info.extra)
        params = optax.apply_updates(params, updates)
        return (params, state, inner), params

    start = jax.tree.map(jnp.asarray, params)
    carry = start, gradient.init(start), optimizer.init(start)
    return jax.device_get(jax.jit(lambda: jax.lax.scan(step, carry, batches)[1])())


def walk_theirs(optimizer_of, params, batches):
    """The same of theirs, called as its documentation says; and how many gradients it took."""
    net, calls, path = Network(params), [], []
    optimizer = optimizer_of(net)

    def counted(prediction, y):
        calls.append(1)
        return torch.nn.functional.mse_loss(prediction, y)

    for x, y in zip(*map(torch.tensor, batches), strict=True):

        def closure(x=x, y=y):
            optimizer.zero_grad()
            value = counted(net(x), y)
            value.backward()
            return value

        if isinstance(optimizer, peers.GSAM):
            optimizer.set_closure(counted, x, y)
            optimizer.step()
            optimizer.rho_scheduler.lr_scheduler.step()
            optimizer.update_rho_t()
        else:
            if not isinstance(optimizer, peers.WSAM):
                closure()
            optimizer.step(closure)
        path.append({name: p.detach().numpy().copy() for name, p in net.named_parameters()})
    return jax.tree.map(lambda *leaves: np.stack(leaves), *path), len(calls)


def wrapped(kind, base=torch.optim.SGD, settings=SGD, **own):
    """``kind`` around a base optimizer, as a function from the network."""
    first = lambda net: (net, net.parameters()) if kind is peers.WSAM else (net.parameters(),)
    return lambda net, **how: kind(*first(net), base, **settings, **own, **how)


def gsam(rho, rho_min=0.0, shape=lambda step: 1.0, **own):
    """Their GSAM under a learning rate that follows ``shape``, and a radius that follows it."""

    def optimizer(net, **how):
        base = torch.optim.SGD(net.parameters(), **SGD)
        rates = torch.optim.lr_scheduler.LambdaLR(base, shape)
        radius = peers.ProportionScheduler(rates, SGD["lr"], 0.0, rho, rho_min)
        return peers.GSAM(net.parameters(), base, net, radius, **own, **how)

    return optimizer


BAYES = {"lr": 0.5, "betas": (0.9, 0.99), "weight_decay": 0.02, "damping": 0.3}
NO_NOISE = 1e30  # examples: the noise of either is below 1e-14


def their_bsam(net, num_data=NO_NOISE, rho=RHO, **changed):
    return peers.BSAM(net.parameters(), num_data, rho=rho, **(BAYES | changed))


def bsam_by_hand(params, batches, theirs):
    """The walk of the formula; or of what their code does, line by line."""
    gradient = jax.jit(jax.grad(lambda w, x, y: loss(unravel(w), x, y)))
    w, unravel = ravel_pytree(params)
    (beta1, beta2), decay, damping = BAYES["betas"], BAYES["weight_decay"], BAYES["damping"]
    m, s, path = 0 * w, 0 * w + 1, []
    for x, y in zip(*batches, strict=True):
        g = gradient(w, x, y)
        above = w + RHO * g / s
        gs = gradient(above, x, y)
        if theirs:
            m = beta1 * m + (1 - beta1) * decay * gs  # a product, not gs + decay w
            growth = (jnp.sqrt(s) * jnp.abs(gs) + damping + decay) ** 2  # of gs, and squared
            s = beta2 * s + (1 - beta2) * growth
            w = above - BAYES["lr"] * m / s  # from above, with the new s
        else:
            m = beta1 * m + (1 - beta1) * (gs + decay * w)
            w = w - BAYES["lr"] * m / s
            s = beta2 * s + (1 - beta2) * (jnp.sqrt(s) * jnp.abs(g) + damping + decay)
        path.append(unravel(w))
    return jax.tree.map(lambda *leaves: np.stack(leaves), *path)


def squared_norm(groups, device=None, *, weight_adaptive=False):
    """What they call ``get_global_gradient_norm``, without its rounding to float32."""
    pairs = [(group, p) for group in groups for p in group["params"] if p.grad is not None]
    weight = lambda group, p: p.abs() if weight_adaptive and group.get("adaptive") else 1.0
    return sum((p.grad * weight(group, p)).square().sum() for group, p in pairs).reshape(1)


def difference(a, b):
    """The largest between two walks, or two trees of weights."""
    return max(np.abs(a[name] - b[name]).max() for name in b)
