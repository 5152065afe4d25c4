"""Which minima of the squared loss can SAM stay at? Sharpness and non-uniformity over the radius.

samscale study studies/stability.py --workdir=runs

Section 6.2 and figure 6 of Shin et al., 2025 (arXiv:2311.17539), in the setting of Wu, Ma and E,
2018: an MLP on MNIST, squared loss, constant rate 0.1, no momentum, no decay, to nearly no loss.
There the widths are 3000, 1000; here 1200, 400, for a CPU. Not told there: how many images, batch,
epochs; ours are 1,200, 128 and 300. There, on 1,000 examples: a = 16.05 for SGD and 3.71 for SAM,
at a radius that is not told, s2 = 28.98 and, from radius 0.01 to 0.2, 25.19 to 11.97. Accuracies
are of 1,024 test images: this is not about them.

The paper trains normalized SAM (``sam``); its theorem 6.3 is about unnormalized SAM, which is run
beside it (``usam``). The radius of ``usam`` is in another unit, of weights over gradients: at the
same number it ascends as many times as far as the gradient of the batch is long.
"""

from samscale.config import Config
from samscale.study import Study, methods, repeated, scientific

BASE = Config(
    dataset="mnist",
    num_neurons=(1200, 400),
    loss="squared",
    num_epochs=300,
    learning_rate=0.1,
    lr_scheduler="constant",
    momentum=0.0,
    weight_decay=0.0,
    validation_fraction=0.98,
    steps_per_eval=8,
    flatness_every=1000,  # longer than any run: at its end
    flatness_measures=("curvature", "stability"),
)


def get_study():
    return Study(
        question="Does SAM find minima of less sharpness and non-uniformity at a larger radius?",
        base=BASE,
        axes=(
            scientific("rho", [0.01, 0.02, 0.05, 0.1, 0.2]),
            methods(BASE, "sgd", "sam", "usam"),
            repeated("seed", [1, 2, 3]),
        ),
        x="rho",
    )
