"""Milliseconds of a gradient of a CIFAR ResNet-18 on this CPU: plain XLA, ours, PyTorch.

    python benchmarks/resnet.py --filters 8 16 32 --batch 128 --rounds 7

The three take turns, and each keeps its best round: other programs then disturb all alike.
``floor`` is what the multiplications of the convolutions would take at the rate of a large
matrix product measured between the rounds; a column's percentage is the floor over its time.
"""

import argparse
import os
import time
from functools import partial
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from samscale.models import ResNet18, resnet

BLOCKS, SIZE, CLASSES = (2, 2, 2, 2), 32, 10
PLAIN = {"Conv": partial(nn.Conv, use_bias=False)}
if hasattr(resnet, "BatchNorm"):
    PLAIN["BatchNorm"] = nn.BatchNorm


def jax_gradient(filters, batch):
    model = ResNet18(filters, CLASSES)
    x = jax.random.normal(jax.random.key(0), (batch, SIZE, SIZE, 3))
    y = jnp.arange(batch) % CLASSES
    variables = jax.jit(model.init)(jax.random.key(1), x)

    def loss(params):
        at = {**variables, "params": params}
        logits, stats = model.apply(at, x, train=True, mutable=["batch_stats"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), stats

    gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))
    run = lambda: jax.block_until_ready(gradient(variables["params"]))
    run()
    return run


def plain_gradient(filters, batch):
    """The same model from the layers that it replaced."""
    with mock.patch.multiple(resnet, **PLAIN):
        return jax_gradient(filters, batch)


def torch_block(torch, inputs, filters, stride):
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(inputs, filters, 3, stride, 1, bias=False),
                nn.BatchNorm2d(filters),
                nn.ReLU(),
                nn.Conv2d(filters, filters, 3, 1, 1, bias=False),
                nn.BatchNorm2d(filters),
            )
            project = nn.Conv2d(inputs, filters, 1, stride, bias=False), nn.BatchNorm2d(filters)
            self.shortcut = nn.Sequential(*project if inputs != filters else ())

        def forward(self, x):
            return torch.relu(self.body(x) + self.shortcut(x))

    return Block()


def torch_gradient(torch, filters, batch):
    nn = torch.nn
    layers = [nn.Conv2d(3, filters, 3, 1, 1, bias=False), nn.BatchNorm2d(filters), nn.ReLU()]
    width = filters
    for stage, blocks in enumerate(BLOCKS):
        for i in range(blocks):
            stride = 2 if stage > 0 and i == 0 else 1
            layers.append(torch_block(torch, width, filters * 2**stage, stride))
            width = filters * 2**stage
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, CLASSES)]
    layout = {"memory_format": torch.channels_last}
    model = nn.Sequential(*layers).to(**layout)
    x, y = torch.randn(batch, 3, SIZE, SIZE).to(**layout), torch.arange(batch) % CLASSES

    def run():
        model.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(model(x), y).backward()

    run()
    return run


def products(filters, batch):
    """Operations of the convolutions: output and both gradients, but none of the image."""
    total, inputs, size = 2 * 27 * filters * SIZE**2, filters, SIZE
    for stage, blocks in enumerate(BLOCKS):
        outputs, size = filters * 2**stage, SIZE // 2**stage
        taps = 9 * inputs + (inputs if stage > 0 else 0) + 9 * outputs * (2 * blocks - 1)
        total += 3 * taps * outputs * size**2
        inputs = outputs
    return 2 * batch * total


def matmul(size=2048):
    """A product and how many operations it takes."""
    a = jax.random.normal(jax.random.key(0), (size, size))
    product = jax.jit(jnp.matmul)
    product(a, a).block_until_ready()
    return lambda: product(a, a).block_until_ready(), 2 * size**3


def best(programs, rounds):
    """Seconds of the fastest of ``rounds``, one program after the other in each."""
    times = {name: [] for name in programs}
    for _ in range(rounds):
        for name, run in programs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: min(seconds) for name, seconds in times.items()}


def find_torch():
    try:
        import torch
    except ImportError:
        print("PyTorch is not installed here, so its column is left out.")
        return None
    torch.set_num_threads(os.cpu_count())
    return torch


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--filters", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch, (product, operations) = find_torch(), matmul()
    for filters in args.filters:
        programs = {
            "matmul": product,
            "XLA": plain_gradient(filters, args.batch),
            "ours": jax_gradient(filters, args.batch),
        }
        if torch:
            programs["PyTorch"] = torch_gradient(torch, filters, args.batch)
        seconds = best(programs, args.rounds)
        rate = operations / seconds.pop("matmul")
        floor = products(filters, args.batch) / rate
        print(f"F={filters}: matmul {rate / 1e9:.0f} GFLOP/s, floor {1e3 * floor:.0f} ms")
        for name, t in seconds.items():
            ratio = f"  {t / seconds['PyTorch']:5.2f} x PyTorch" if torch else ""
            print(f"  {name:8}{1e3 * t:8.0f} ms {floor / t:5.0%} of floor{ratio}", flush=True)


if __name__ == "__main__":
    main()
