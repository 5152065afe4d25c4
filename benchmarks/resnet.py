"""The gradient of a CIFAR ResNet-18 on this CPU: plain XLA, ours, PyTorch (a bench-only extra)."""

import os
from functools import partial
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from benchmarks.timing import Row, best, matmul
from samscale.models import ResNet18, resnet

BLOCKS, SIZE, CLASSES = (2, 2, 2, 2), 32, 10
PLAIN = {"Conv": partial(nn.Conv, use_bias=False), "BatchNorm": nn.BatchNorm}


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


def rows(filters=(8, 16, 32), batch=128, rounds=9):
    try:
        import torch
    except ImportError:
        print("PyTorch is not installed here: no row compares ResNet-18 with it")
        return
    torch.set_num_threads(os.cpu_count())
    product, operations = matmul()
    for width in filters:
        programs = {
            "matmul": product,
            "XLA": plain_gradient(width, batch),
            "ours": jax_gradient(width, batch),
            "PyTorch": torch_gradient(torch, width, batch),
        }
        seconds = best(programs, rounds)
        rate = operations / seconds["matmul"]
        floor = products(width, batch) / rate
        yield Row(
            f"ResNet-18 with {width} filters, forward and backward: ours / PyTorch",
            seconds["ours"] / seconds["PyTorch"],
            f"{1e3 * seconds['ours']:.0f} ms against {1e3 * seconds['PyTorch']:.0f} ms; plain XLA "
            f"{1e3 * seconds['XLA']:.0f} ms; the products at {rate / 1e9:.0f} GFLOP/s "
            f"{1e3 * floor:.0f} ms",
            at_most=1.5,
        )
