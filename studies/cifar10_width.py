"""The paper's CIFAR-10 curve (figure 1). For GPUs: the widest network alone is days on two cores.

samscale study studies/cifar10_width.py --workdir=runs --executor=processes

The paper's seventh width, 256 filters (178.6 million parameters), may be added at any time.
"""

from samscale.config import Config
from samscale.study import Study, methods, nuisance, published, repeated, scientific

BASE = Config(
    dataset="cifar10",
    model="ResNet18",
    augmentation="crop_flip",
    num_epochs=200,
    learning_rate=0.1,
    lr_scheduler="step",
    weight_decay=5e-4,
    validation_fraction=0.1,  # the paper trained on these, too, and chose the radius on test
)
PAPER = published(  # digitized; its radii: .005, .1, .1, .1, .2, .2
    x=(44_622, 176_402, 701_466, 2_797_610, 11_173_962, 44_662_922),
    gain=(
        (0.0036, 0.0066, 0.0044, 0.00847, 0.00963, 0.01227),
        (0.0015, 0.00091, 0.00138, 0.0009, 0.00073, 0.00129),
    ),
    sgd=(
        (0.83623, 0.8879, 0.92573, 0.9406, 0.95033, 0.9524),
        (0.002, 0.0004, 0.0016, 0.0018, 0.0011, 0.0021),
    ),
    sam=(
        (0.83983, 0.8945, 0.93013, 0.94907, 0.95997, 0.96467),
        (0.0027, 0.0016, 0.0023, 0.0004, 0.0009, 0.0007),
    ),
    source="Shin et al., UAI 2025, figure 7: radius chosen on test",
)


def get_study():
    return Study(
        question="Does SAM help more where a ResNet-18 on CIFAR-10 is wider?",
        base=BASE,
        axes=(
            scientific("num_filters", [4, 8, 16, 32, 64, 128]),
            methods(BASE, "sgd", "sgd_2x", "sam"),
            nuisance("rho", [0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0], only=["sam"]),
            repeated("seed", [1, 2, 3]),
        ),
        paper=PAPER,
    )
