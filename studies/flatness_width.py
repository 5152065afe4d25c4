"""How flat are the minima that SAM and SGD find, as an MLP on Fashion-MNIST gets wider?

samscale study studies/flatness_width.py --workdir=runs

Sharpness, trace, non-uniformity s2, s3, s4, m-sharpness and the gap, at the end of every run: a
sweep that the paper does not have. The report's section on flatness has a panel for each, and the
next one says whether they predict accuracy. The theory of linear stability is about unnormalized
SAM (``usam``), whose radius is in another unit: at the same number it ascends as many times as far
as the gradient of the batch is long.
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
    flatness_every=1000,  # longer than any run: at its end
    flatness_measures=("curvature", "sharpness", "stability"),
)


def get_study():
    return Study(
        question="Does SAM find flatter minima where an MLP on Fashion-MNIST is wider?",
        base=BASE,
        axes=(
            scientific("num_neurons", [(75, 25), (150, 50), (300, 100), (600, 200), (1200, 400)]),
            methods(BASE, "sgd", "sgd_2x", "sam", "usam"),
            nuisance("rho", [0.05, 0.2], only=["sam", "usam"]),
            repeated("seed", [1, 2, 3]),
        ),
    )
