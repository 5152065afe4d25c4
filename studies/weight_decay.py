"""SAM against stronger weight decay (figure 18), each at its best decay. For GPUs.

samscale study studies/weight_decay.py --workdir=runs --executor=processes

The decay is chosen on validation for every method, so the baseline has its tries, too.
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
    validation_fraction=0.1,
)
PAPER = published(  # digitized
    x=(44_622, 701_466, 2_797_610, 11_173_962),
    gain=((0.0028, 0.00753, 0.00667, 0.01043), (0.0013, 0.0015, 0.0018, 0.0012)),
    sgd=(0.8391, 0.9237, 0.9422, 0.951),
    sam=(0.8419, 0.9313, 0.9488, 0.9615),
    source="Shin et al., UAI 2025, figure 18: decay and radius chosen on test",
)


def get_study():
    return Study(
        question="Does SAM still help a wider ResNet-18 more where weight decay is chosen, too?",
        base=BASE,
        axes=(
            scientific("num_filters", [4, 16, 32, 64]),
            methods(BASE, "sgd", "sgd_2x", "sam"),
            nuisance("weight_decay", [5e-5, 1e-4, 5e-4, 1e-3, 5e-3]),
            nuisance("rho", [0.05, 0.1, 0.2], only=["sam"]),
            repeated("seed", [1, 2, 3]),
        ),
        paper=PAPER,
    )
