"""The MNIST study on Fashion-MNIST; not in the paper.

samscale study studies/fashion_mnist_width.py --workdir=runs --epochs=10
"""

from samscale.config import Config
from samscale.study import Study, methods, nuisance, repeated, scientific

BASE = Config(
    dataset="fashion_mnist",
    num_epochs=30,
    learning_rate=0.1,
    lr_scheduler="step",
    weight_decay=1e-4,
    validation_fraction=0.1,
)


def get_study():
    return Study(
        question="Does SAM help more where an MLP on Fashion-MNIST is wider?",
        base=BASE,
        axes=(
            scientific("num_neurons", [(75, 25), (150, 50), (300, 100), (1200, 400)]),
            methods(BASE, "sgd", "sgd_2x", "sam"),
            nuisance("rho", [0.01, 0.02, 0.05, 0.1, 0.2], only=["sam"]),
            repeated("seed", [1, 2, 3]),
        ),
    )
