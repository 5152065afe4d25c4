"""CIFAR-10, ResNet-18: the paper's table 2. For a GPU: hours an epoch on two cores at 64 filters.

    python main.py --workdir=runs --config=configs/cifar10_resnet18.py \
        --config.num_filters=128 --config.rho=0.2

The paper's widths: 4, 8, 16, 32, 64, 128, 256 filters. Its radii: .001, .005, .01, .02, .05, .1,
.2, .5, 1. Its baseline: --config.optimizer=sgd; at SAM's compute: also --config.num_epochs=400.
"""

from samscale.config import Config


def get_config():
    return Config(
        dataset="cifar10",
        model="ResNet18",
        num_filters=64,
        augmentation="crop_flip",
        optimizer="sam",
        rho=-1.0,  # the method's own: 0.05 of sam
        learning_rate=0.1,
        lr_scheduler="step",
        momentum=0.9,
        weight_decay=5e-4,
        batch_size=128,
        num_epochs=200,
        validation_fraction=0.1,  # the paper trained on all 50,000 and chose on test: 0 does that
        pruner="none",  # the released config: random, which removed a weight a kernel at sparsity 0
        seed=1,
    )
