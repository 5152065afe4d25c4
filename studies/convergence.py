r"""Do wider factorisations converge faster with SAM? $W_2 W_1$ of a 10 x 6 matrix (figure 6c).

samscale study studies/convergence.py --workdir=runs

Width 4 cannot interpolate a matrix of rank 6, width 10 can: then theorem 6.6 promises a linear rate
at a constant learning rate, to unnormalised SAM of a small radius: the report has it beside the
measured one.
The paper does not state radius, batch, matrix or initialization. Ours, so that its curves come out
nearly: batches of 8, weights N(0, 0.01), a Gaussian matrix scaled to Frobenius norm 0.4.
"""

import flax.linen as nn
import numpy as np

from samscale import losses, tasks
from samscale.config import Config
from samscale.study import Study, convergence, methods, nuisance, published, repeated, scientific

BASE = Config(
    task="samscale.studies.convergence:get_task",
    num_neurons=(10,),
    batch_size=8,
    num_epochs=100,
    learning_rate=5e-4,
    lr_scheduler="constant",
    momentum=0.0,
    weight_decay=0.0,
)
PAPER = published(  # digitized, at the last epoch; the curves begin at 2^-2.40 and 2^-2.23
    x=(64, 160),
    usam=(2**-5.01, 2**-7.09),
    source="Shin et al., UAI 2025, figure 6c: neither which SAM nor its radius stated",
)
NUM_EXAMPLES, NUM_INPUTS, NUM_OUTPUTS = 1_000, 6, 10  # of each split
NORM, DEVIATION = 0.4, 0.1


class Product(nn.Module):
    """$W_2 W_1 x$, with ``width`` rows in $W_1$."""

    width: int

    @nn.compact
    def __call__(self, x, train=False):  # (batch, NUM_INPUTS) -> (batch, NUM_OUTPUTS)
        del train
        how = {"use_bias": False, "kernel_init": nn.initializers.normal(DEVIATION)}
        return nn.Dense(NUM_OUTPUTS, **how)(nn.Dense(self.width, **how)(x))


def get_task(config):
    rng = np.random.default_rng(0)  # not the run's: every run has this matrix and these examples
    a = rng.standard_normal((NUM_OUTPUTS, NUM_INPUTS))
    a *= NORM / np.linalg.norm(a)
    x = rng.standard_normal((3, NUM_EXAMPLES, NUM_INPUTS))
    splits = [{"x": np.float32(part), "y": np.float32(part @ a.T)} for part in x]
    model = Product(config.num_neurons[0])
    init, loss = tasks.supervised(model, tasks.squared, example=splits[0])
    about = {"outputs": tasks.predictor(model), "criterion": losses.squared_errors}
    return tasks.Task(*splits, init, loss, monitor="loss", maximize=False, **about)


def kept(runs, workdir):
    """The promised rate beside the measured one, where the matrix can be interpolated."""
    return convergence.kept(runs[runs["x"] == 160], workdir)


def get_study():
    return Study(
        question="Does the loss of a matrix factorisation fall faster with SAM where it is wider?",
        base=BASE,
        axes=(
            scientific("num_neurons", [(4,), (10,)]),
            methods(BASE, "sgd", "sgd_2x", "usam"),
            nuisance("rho", [1e-4, 1e-3, 1e-2, 1e-1, 1.0], only=["usam"]),
            repeated("seed", [1, 2, 3, 4, 5]),
        ),
        metric="loss",
        maximize=False,
        value="train_loss",  # the mean over the last epoch's steps; the radius: on validation_loss
        paper=PAPER,
        pictures=("samscale.study.convergence:falling", "samscale.studies.convergence:kept"),
    )
