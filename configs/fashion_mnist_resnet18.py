"""Fashion-MNIST, ResNet-18; not in the paper. Its CIFAR-10 hyperparameters, fewer epochs.

    python main.py --workdir=runs --config=configs/fashion_mnist_resnet18.py --config.num_filters=4

Minutes an epoch on two cores from 16 filters on: see docs/results.md.
"""

from samscale.config import Config


def get_config():
    return Config(
        dataset="fashion_mnist",
        model="ResNet18",
        num_filters=16,
        augmentation="crop_flip",
        optimizer="sam",
        rho=-1.0,  # the method's own: 0.05 of sam
        learning_rate=0.1,
        lr_scheduler="step",
        momentum=0.9,
        weight_decay=5e-4,
        batch_size=128,
        num_epochs=30,
        seed=1,
    )
