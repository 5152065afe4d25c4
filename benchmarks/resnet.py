"""Loss and gradients of a CIFAR ResNet-18 on CPUs: plain XLA, this package's convolution, PyTorch.

    python benchmarks/resnet.py [--filters 8 16 32] [--batch 128] [--rounds 9]

One call each in turn, round after round; a time is the least over the rounds. Batch normalisation
is in training mode, all is float32, and PyTorch (optional) has as many threads as there are CPUs.
"""

import argparse
import os
import time
from functools import partial
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from samscale.models import ResNet18, resnet

try:
    import torch
except ImportError:
    torch = None

NUM_CLASSES = 10
PLAIN = partial(nn.Conv, use_bias=False)


def images(batch):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, 32, 32, 3)).astype(np.float32)
    return x, rng.integers(NUM_CLASSES, size=batch)


def jax_step(conv, num_filters, x, labels):
    """A compiled call that waits for the loss and the gradients."""
    net = ResNet18(num_filters, NUM_CLASSES)
    x, labels = jnp.asarray(x), jnp.asarray(labels)

    def loss(params, stats):
        variables = {"params": params, "batch_stats": stats}
        logits, updates = net.apply(variables, x, train=True, mutable=["batch_stats"])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean(), updates

    with mock.patch.object(resnet, "Conv", conv):
        variables = jax.jit(net.init)(jax.random.key(0), x)
        args = variables["params"], variables["batch_stats"]
        step = jax.jit(jax.value_and_grad(loss, has_aux=True)).lower(*args).compile()
    return lambda: jax.block_until_ready(step(*args))


def torch_step(num_filters, x, labels):
    net = torch_resnet18(num_filters).to(memory_format=torch.channels_last)
    x = torch.from_numpy(x).permute(0, 3, 1, 2)  # channels last in memory
    labels = torch.from_numpy(labels)

    def step():
        net.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(net(x), labels).backward()

    return step


def torch_resnet18(num_filters):
    layers = [*torch_conv_norm(3, num_filters, 3, 1), torch.nn.ReLU()]
    channels = num_filters
    for stage in range(4):
        for i in range(2):
            filters, stride = num_filters * 2**stage, 2 if stage and i == 0 else 1
            layers.append(torch_block(channels, filters, stride))
            channels = filters
    head = torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(channels, NUM_CLASSES)
    return torch.nn.Sequential(*layers, *head)


def torch_conv_norm(channels, filters, size, stride):
    conv = torch.nn.Conv2d(channels, filters, size, stride, size // 2, bias=False)
    return conv, torch.nn.BatchNorm2d(filters)


def torch_block(channels, filters, stride):
    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            first = torch_conv_norm(channels, filters, 3, stride)
            second = torch_conv_norm(filters, filters, 3, 1)
            self.body = torch.nn.Sequential(*first, torch.nn.ReLU(), *second)
            same = (channels, stride) == (filters, 1)
            project = () if same else torch_conv_norm(channels, filters, 1, stride)
            self.shortcut = torch.nn.Sequential(*project)

        def forward(self, x):
            return torch.relu(self.shortcut(x) + self.body(x))

    return Block()


def matmul_steps(n=1024):
    a = np.random.default_rng(0).normal(size=(n, n)).astype(np.float32)
    product = jax.jit(jnp.matmul).lower(a, a).compile()
    on_device = jnp.asarray(a)
    steps = {"XLA": lambda: product(on_device, on_device).block_until_ready()}
    if torch:
        b = torch.from_numpy(a)
        steps["PyTorch"] = lambda: torch.matmul(b, b)
    return steps, 2 * n**3


def least_seconds(steps, rounds):
    """The least time of each step, after two calls to warm up."""
    seconds = {name: [] for name in steps}
    for _ in range(2 + rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    return {name: min(s[2:]) for name, s in seconds.items()}


def network_steps(num_filters, batch):
    x, labels = images(batch)
    steps = {
        "plain XLA": jax_step(PLAIN, num_filters, x, labels),
        "samscale": jax_step(resnet.Conv, num_filters, x, labels),
    }
    if torch:
        steps["PyTorch"] = torch_step(num_filters, x, labels)
    return steps


def row(num_filters, seconds):
    reference = seconds.get("PyTorch")
    cells = [f"{num_filters:>7}"]
    for time_ in seconds.values():
        ratio = f"{time_ / reference:5.2f}x" if reference else ""
        cells.append(f"{1e3 * time_:>9.1f} {ratio:>6}")
    return " |".join(cells)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--filters", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    if torch:
        torch.set_num_threads(os.cpu_count())
    else:
        print("PyTorch is not installed, so its times are left out.")
    print(f"Milliseconds (times PyTorch's), batch {args.batch}, {os.cpu_count()} CPUs")
    for i, num_filters in enumerate(args.filters):
        seconds = least_seconds(network_steps(num_filters, args.batch), args.rounds)
        if i == 0:
            print(" |".join(["filters", *(f"{name:>16}" for name in seconds)]))
        print(row(num_filters, seconds), flush=True)
    steps, operations = matmul_steps()
    rates = least_seconds(steps, 3 * args.rounds)
    shown = (f"{name} {operations / s / 1e9:.0f} GFLOP/s" for name, s in rates.items())
    print("Product of 1024x1024 matrices: " + ", ".join(shown))


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    main()
