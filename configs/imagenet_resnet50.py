"""ImageNet, ResNet-50: the paper's table 2. Its data pipeline is not part of this version yet.

    python main.py --workdir=runs --config=configs/imagenet_resnet50.py --config.num_filters=80

The paper's widths: 16, 32, 48, 64, 80 filters. Its radii: .01, .02, .05, .1, .2, and .005 for the
two smallest widths. Its baseline: --config.optimizer=sgd.
"""

from samscale.config import Config


def get_config():
    return Config(
        dataset="imagenet",
        model="ResNet50",
        num_filters=64,
        optimizer="sam",
        rho=-1.0,  # the method's own: 0.05 of sam
        learning_rate=0.1,  # the released config: 0.2
        lr_scheduler="cosine",  # the released config: step_mnist, which ignored warmup_steps
        warmup_steps=5000,
        momentum=0.9,
        weight_decay=1e-4,
        batch_size=512,
        num_epochs=90,
        pruner="none",  # the released config: random, which removed a weight a kernel at sparsity 0
        seed=1,
    )
