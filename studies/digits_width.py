"""Does SAM help more where the network is wider? Embedded data, a minute on two cores.

samscale study studies/digits_width.py --workdir=runs
"""

from samscale.config import Config
from samscale.study import Study, methods, nuisance, repeated, scientific

BASE = Config(
    dataset="digits",
    validation_fraction=0.2,
    batch_size=64,
    num_epochs=20,
    learning_rate=0.1,
    lr_scheduler="cosine",
    weight_decay=1e-4,
)


def get_study():
    return Study(
        question="Does SAM help more where an MLP on handwritten digits (8x8) is wider?",
        base=BASE,
        axes=(
            scientific("num_neurons", [(16, 8), (32, 16), (64, 32), (192, 96)]),
            methods(BASE, "sgd", "sgd_2x", "sam"),
            nuisance("rho", [0.02, 0.05, 0.1, 0.2], only=["sam"]),
            repeated("seed", range(5)),
        ),
    )
