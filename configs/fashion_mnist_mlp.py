"""Fashion-MNIST, MLP; not in the paper. Its MNIST hyperparameters, 30 epochs: docs/results.md.

python main.py --workdir=runs --config=configs/fashion_mnist_mlp.py --config.optimizer=sgd
"""

from samscale.config import Config


def get_config():
    return Config(
        dataset="fashion_mnist",
        model="MLP",
        num_neurons=(300, 100),
        optimizer="sam",
        rho=-1.0,  # the method's own: 0.05 of sam
        learning_rate=0.1,
        lr_scheduler="step",
        momentum=0.9,
        weight_decay=1e-4,
        batch_size=128,
        num_epochs=30,
        seed=1,
    )
