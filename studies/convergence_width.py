"""Do wider MLPs converge faster with SAM? The training loss on MNIST (figure 6c).

samscale study studies/convergence_width.py --workdir=runs

The paper does not give the hyperparameters of its figure 6c, all of whose curves are SAM's. Ours:
its rate and momentum for MNIST, neither drops nor decay. With a radius of 0.05 the two smaller
networks then end near its curves; without momentum the second is a factor of ten behind.
"""

from samscale.config import Config
from samscale.study import Study, methods, nuisance, published, repeated, scientific

BASE = Config(
    dataset="mnist",
    num_epochs=20,
    learning_rate=0.1,
    lr_scheduler="constant",
    momentum=0.9,
    weight_decay=0.0,
    validation_fraction=0.1,  # the paper trained on these, too
)
PAPER = published(  # digitized, at the last epoch; the first curve begins at 2^-1.29
    x=(23_970, 266_610, 5_366_010),
    sam=(2**-3.61, 2**-8.81, 2**-11.11),
    source="Shin et al., UAI 2025, figure 6c: radius not stated",
)


def get_study():
    return Study(
        question="Does the training loss on MNIST fall faster with SAM where the MLP is wider?",
        base=BASE,
        axes=(
            scientific("num_neurons", [(30, 10), (300, 100), (3000, 1000)]),
            methods(BASE, "sgd", "sgd_2x", "sam"),
            nuisance("rho", [0.01, 0.02, 0.05, 0.1, 0.2], only=["sam"]),
            repeated("seed", [1, 2, 3]),
        ),
        metric="loss",
        maximize=False,
        value="train_loss",  # the mean over the last epoch's steps; the radius: on validation_loss
        paper=PAPER,
        pictures=("samscale.study.convergence:falling",),
    )
