"""Which of the SAM family helps a small MLP? Fashion-MNIST, every method at three radii.

    samscale study examples/sam_family.py --workdir=runs

Each method stands at its own default radius, at half and at twice of it (the labels' factors).
SAM-ON is left out: the network has no normalization. Learning rate, momentum, decay and schedule
are those of SGD for all, but for the two methods that bring an optimizer of their own, which keep
their authors' learning rate.
"""

from samscale.config import Config
from samscale.knobs import own
from samscale.sharpness import PRESETS
from samscale.study import METHOD, SCIENTIFIC, Axis, Study, repeated, scientific

FACTORS = (0.5, 1, 2)
RATES = {"bsam": {"learning_rate": 0.5}, "sassha": {"learning_rate": 0.15}}
BASE = Config(
    dataset="fashion_mnist",
    num_epochs=10,
    learning_rate=0.1,
    lr_scheduler="step",
    weight_decay=1e-4,
    validation_fraction=0.1,
)


def get_study():
    family = {
        f"{name} x{factor:g}": {"optimizer": name, "rho": factor * own("rho", name)}
        | RATES.get(name, {})
        for name in PRESETS
        for factor in FACTORS
        if name != "sam_on"
    }
    plain = {"sgd": {"optimizer": "sgd"}, "sgd_2x": {"optimizer": "sgd", "num_epochs": 20}}
    return Study(
        question="Which sharpness-aware gradients help a small MLP, and at which radius?",
        base=BASE,
        axes=(
            scientific("num_neurons", [(150, 50)]),
            Axis(METHOD, SCIENTIFIC, plain | family),
            repeated("seed", [1, 2, 3]),
        ),
    )
