"""CIFAR-100, ResNet-18; not in the paper. Its CIFAR-10 hyperparameters.

python main.py --workdir=runs --config=configs/cifar100_resnet18.py --config.rho=0.1
"""

from samscale.config import Config


def get_config():
    return Config(
        dataset="cifar100",
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
        seed=1,
    )
