r"""The sharpness-aware methods once more, from their papers, in slow NumPy: witnesses.

Weights are one flat vector, in the order of ``LEAVES``. A method maps a ``Step`` and its choices to
the gradient that the optimizer is given; what it must remember it keeps in ``step.memory``.
"""

import math
from typing import Any, NamedTuple

import numpy as np

LEAVES = {"b": (4,), "scale": (4,), "v": (4,), "w": (3, 4)}
SIZES = [math.prod(shape) for shape in LEAVES.values()]
ENDS = np.cumsum(SIZES)
SLICES = {n: slice(end - size, end) for n, end, size in zip(LEAVES, ENDS, SIZES, strict=True)}


def leaves(w):
    return [w[SLICES[name]].reshape(shape) for name, shape in LEAVES.items()]


def losses(w, batch):
    x, y = batch
    b, s, v, kernel = leaves(w)
    return (np.tanh((x @ kernel + b) * s) @ v - y) ** 2


def gradient(w, batch):
    """Of the mean loss, by hand, without a conjugate: w may be complex."""
    x, y = batch
    b, s, v, kernel = leaves(w)
    z = x @ kernel + b
    h = np.tanh(z * s)
    df = 2 * (h @ v - y) / len(y)
    dzs = df[:, None] * v * (1 - h**2)
    dz = dzs * s
    return np.concatenate([dz.sum(0), (dzs * z).sum(0), df @ h, (x.T @ dz).ravel()])


def hessian(w, batch):
    """By complex steps, which lose no digits."""
    return np.array([gradient(w + 1e-30j * i, batch).imag / 1e-30 for i in np.eye(w.size)])


class Step(NamedTuple):
    w: np.ndarray
    batch: tuple
    t: int
    draw: Any  # the random numbers of this step
    memory: dict

    def g(self, e=0.0):
        return gradient(self.w + e, self.batch)


def unit(x):
    return x / np.sqrt((x**2).sum())


def dual(g, rho, ord):
    """The point of the p-ball that is farthest in the direction g."""
    size = np.abs(g)
    if ord == 1:
        hit = size == size.max()
        return rho * np.sign(g) * hit / hit.sum()
    if ord == np.inf:
        return rho * np.sign(g)
    q = 1 / (1 - 1 / ord)
    return rho * np.sign(g) * (size**q / (size**q).sum()) ** (1 / ord)


def layerwise(w, g, rho):
    parts = [rho * np.linalg.norm(w[at]) * unit(g[at]) for at in SLICES.values()]
    return np.concatenate(parts)


def sam(step, rho, ord=2):
    return step.g(dual(step.g(), rho, ord))


def usam(step, rho):
    return step.g(rho * step.g())


def m_sam(step, rho, groups):
    parts = zip(*(np.split(a, groups) for a in step.batch), strict=True)
    return sum(sam(step._replace(batch=part), rho) for part in parts) / groups


def asam(step, rho, eta, ord=2):
    t = np.ones(step.w.size)
    t[SLICES["w"]] = np.abs(step.w[SLICES["w"]]) + eta
    return step.g(t * dual(t * step.g(), rho, ord))


def asam_all(step, rho):
    g, w2 = step.g(), step.w**2
    return step.g(rho * w2 * g / np.sqrt((w2 * g**2).sum()))


def layer_sam(step, rho):
    return step.g(layerwise(step.w, step.g(), rho))


def fisher_sam(step, rho, eta):
    g = step.g()
    inverse = np.diag(1 / (1 + eta * g**2))
    return step.g(rho * inverse @ g / math.sqrt(g @ inverse @ g))


def random_sam(step, rho):
    return step.g(rho * unit(step.draw))


def momentum_sam(step, rho):
    v = step.memory.get("v")
    return step.g() if v is None else step.g(-rho * unit(v))


def multistep_sam(step, rho, steps):
    e = np.zeros(step.w.size)
    for _ in range(steps):
        e = e + rho * unit(step.g(e))
        if np.linalg.norm(e) > rho:
            e = rho * unit(e)
    return step.g(e)


def exact_sam(step, rho):
    """de/dw = rho / |g| (1 - P) H with P the projection on g; both factors are symmetric."""
    g = step.g()
    gs = step.g(rho * unit(g))
    across = np.eye(g.size) - np.outer(unit(g), unit(g))
    return gs + rho / np.linalg.norm(g) * hessian(step.w, step.batch) @ across @ gs


def sam_on(step, rho):
    g = np.zeros(step.w.size)
    g[SLICES["scale"]] = step.g()[SLICES["scale"]]
    return step.g(rho * unit(g))


def ssam_fisher(step, rho, sparsity, refresh, samples):
    if step.t % refresh == 0:
        x, y = step.batch
        each = [gradient(step.w, (x[[i]], y[[i]])) for i in range(samples)]
        fisher = np.square(each).sum(0)
        kept = round((1 - sparsity) * fisher.size)
        step.memory["mask"] = fisher >= np.sort(fisher)[-kept]
    return step.g(step.memory["mask"] * rho * unit(step.g()))


def ssam_dynamic(step, rho, sparsity, drop_rate, refresh, total):
    g, size = step.g(), step.w.size
    live = size - math.ceil(sparsity * size)
    if step.t == 0:
        step.memory["mask"] = set(np.argsort(step.draw)[size - live :])
    elif step.t % refresh == 0:
        rate = drop_rate * (1 + math.cos(math.pi * min(step.t / total, 1))) / 2
        drop = min(int(rate * live), size - live)
        mask = sorted(step.memory["mask"], key=lambda i: abs(g[i]))
        dead = sorted(set(range(size)) - set(mask), key=lambda i: -step.draw[i])
        step.memory["mask"] = {*mask[drop:], *dead[:drop]}
    mask = np.isin(np.arange(size), list(step.memory["mask"]))
    return step.g(mask * rho * unit(g))


def friendly_sam(step, rho, sigma, decay):
    g, m = step.g(), step.memory.get("m")
    d = g if m is None else g - sigma * m
    step.memory["m"] = g if m is None else decay * m + (1 - decay) * g
    return step.g(rho * unit(d))


def vasso(step, rho, theta):
    g = step.g()
    d = step.memory["d"] = (1 - theta) * step.memory.get("d", g) + theta * g
    return step.g(rho * unit(d))


def gsam(step, rho, alpha):
    g, gs = step.g(), sam(step, rho)
    return gs - alpha * (g - (g @ unit(gs)) * unit(gs))


def wsam(step, rho, gamma):
    g = step.g()
    step.memory["beside"] = gamma / (1 - gamma) * (sam(step, rho) - g)
    return g


def wsam_coupled(step, rho, gamma):
    weight = gamma / (1 - gamma)
    return (1 - weight) * step.g() + weight * sam(step, rho)


def _look(step, perturbed, alpha, every):
    g = step.g()
    if step.t % every == 0:
        gs = perturbed()
        step.memory["v"] = gs - (g @ gs) / (g @ g) * g
        return gs
    return g + alpha * np.linalg.norm(g) * unit(step.memory["v"])


def looksam(step, rho, alpha, every):
    return _look(step, lambda: sam(step, rho), alpha, every)


def look_layer_sam(step, rho, alpha, every):
    return _look(step, lambda: layer_sam(step, rho), alpha, every)


def periodic_sam(step, rho, every):
    return step.g() if step.t % every else sam(step, rho)


def step_size_sam(step, rho):
    return unit(step.g()) * np.linalg.norm(sam(step, rho))


def esam(step, rho, beta, gamma):
    kept = np.repeat(step.draw, SIZES)
    e = kept * rho * unit(step.g()) / beta
    rise = losses(step.w + e, step.batch) - losses(step.w, step.batch)
    rows = np.argsort(-rise)[: round(gamma * len(rise))]
    return gradient(step.w + e, tuple(a[rows] for a in step.batch))


def bsam(step, rho, num_examples):
    s = step.memory["s"]
    step.memory["noisy"] = step.g(step.draw / np.sqrt(num_examples * s))
    return step.g(rho * step.memory["noisy"] / s)


def sassha(step, rho):
    e = rho * unit(step.g())
    step.memory["h"] = np.abs(step.draw * (hessian(step.w + e, step.batch) @ step.draw))
    return step.g(e)


def by_momentum(step, u):
    v = step.memory["velocity"] = 0.9 * step.memory.get("velocity", 0) + u
    return v


def by_momentum_sam(step, u):
    step.memory["v"] = by_momentum(step, u)
    return step.memory["v"]


def by_wsam(step, u):
    return by_momentum(step, u) + step.memory["beside"]


def by_bsam(step, u, beta1, beta2, gamma, delta):
    m, s = step.memory.get("m", 0), step.memory["s"]
    m = step.memory["m"] = beta1 * m + (1 - beta1) * (u + delta * step.w)
    new = np.sqrt(s) * np.abs(step.memory["noisy"]) + gamma + delta
    step.memory["s"] = beta2 * s + (1 - beta2) * new
    return m / s


def by_sassha(step, u, beta1, beta2, epsilon, every):
    k = step.t + 1
    m = step.memory["m"] = beta1 * step.memory.get("m", 0) + (1 - beta1) * u
    if step.t % every == 0:
        d = step.memory["D"] = beta2 * step.memory.get("D", 0) + (1 - beta2) * step.memory["h"]
        step.memory["root"] = np.sqrt(d / (1 - beta2**k))
    return m / (1 - beta1**k) / (step.memory["root"] + epsilon)


METHODS = [sam, usam, m_sam, asam, asam_all, layer_sam, fisher_sam, random_sam, momentum_sam]
METHODS += [multistep_sam, exact_sam, sam_on, ssam_fisher, ssam_dynamic, friendly_sam, vasso, gsam]
METHODS += [wsam, wsam_coupled, looksam, look_layer_sam, periodic_sam, step_size_sam, esam, bsam]
METHODS = {method.__name__: method for method in [*METHODS, sassha]}
RULES = {"wsam": by_wsam, "momentum_sam": by_momentum_sam, "bsam": by_bsam, "sassha": by_sassha}


def walk(name, w, batches, draws, learning_rate, choices, own):
    """The weights after every step; ``own``: the choices of the method's own optimizer."""
    own = dict(own)
    memory, path = {"s": np.full(w.size, own.pop("initial_precision", 1.0))}, []
    for t, (x, y, draw) in enumerate(zip(*batches, draws, strict=True)):
        step = Step(w, (x, y), t, draw, memory)
        u = METHODS[name](step, **choices)
        w = w - learning_rate * RULES.get(name, by_momentum)(step, u, **own)
        path.append(w)
    return np.array(path)
