"""Deeper instead of wider (figure 17). One, two, three hidden layers of 1,000 neurons.

samscale study studies/mnist_depth.py --workdir=runs --epochs=10
"""

from samscale.config import Config
from samscale.study import Study, methods, nuisance, published, repeated, scientific

BASE = Config(
    dataset="mnist",
    num_epochs=100,
    learning_rate=0.1,
    lr_scheduler="step",
    weight_decay=1e-4,
    validation_fraction=0.1,
)
PAPER = published(  # digitized
    x=(795_010, 1_796_010, 2_797_010),
    gain=((0.00113, 0.0013, 0.00183), (0.0004, 0.0002, 0.0004)),
    source="Shin et al., UAI 2025, figure 17: radius chosen on test",
)


def get_study():
    return Study(
        question="Does SAM help more where an MLP on MNIST is deeper?",
        base=BASE,
        axes=(
            scientific("num_neurons", [(1000,) * depth for depth in (1, 2, 3)]),
            methods(BASE, "sgd", "sgd_2x", "sam"),
            nuisance("rho", [0.01, 0.02, 0.05, 0.1, 0.2], only=["sam"]),
            repeated("seed", [1, 2, 3]),
        ),
        paper=PAPER,
    )
