"""The paper's MNIST curve (figure 1). Does SAM gain more where the MLP is wider?

samscale study studies/mnist_width.py --workdir=runs --epochs=10

At the paper's 100 epochs: hours on two cores. Its fifth width, (3000, 1000), may be added at any
time: what has run is reused.
"""

from samscale.config import Config
from samscale.study import Study, methods, nuisance, published, repeated, scientific

BASE = Config(
    dataset="mnist",
    num_epochs=100,
    learning_rate=0.1,
    lr_scheduler="step",
    weight_decay=1e-4,
    validation_fraction=0.1,  # the paper trained on these, too, and chose the radius on test
)
PAPER = published(  # digitized; its radii: .02, .1, .2, .2
    x=(61_035, 125_810, 266_610, 1_426_410),
    gain=((0.00073, 0.00063, 0.0018, 0.0019), (0.00029, 0.00089, 0.00061, 0.00021)),
    sgd=(0.98197, 0.98547, 0.98557, 0.98667),
    sam=(0.9827, 0.9861, 0.98737, 0.98857),
    source="Shin et al., UAI 2025, figure 7: 100 epochs, radius chosen on test",
)


def get_study():
    return Study(
        question="Does SAM help more where an MLP on MNIST is wider?",
        base=BASE,
        axes=(
            scientific("num_neurons", [(75, 25), (150, 50), (300, 100), (1200, 400)]),
            methods(BASE, "sgd", "sgd_2x", "sam"),
            nuisance("rho", [0.01, 0.02, 0.05, 0.1, 0.2], only=["sam"]),
            repeated("seed", [1, 2, 3]),
        ),
        paper=PAPER,
    )
