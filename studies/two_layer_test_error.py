r"""Does SAM err less where a two-layer network is wider? (figure 22 and appendix I)

samscale study studies/two_layer_test_error.py --workdir=runs

Unnormalised SAM: theorem I.1 is about it. The paper does not say which SAM its figure has, nor in
what unit errors are: the mean squared error comes within a tenth of its curve up to width 5,000.
Its rate drops by ten once, at 50 %; the nearest here, ``step``, drops again at 75 %. From its grids
(rates 1e-2 to 1e-7, radii 1e-1 to 1e-5) we leave out what was far from winning at any width, and go
up to a rate at which every width diverges: what is stable is about 10 / width, and wins.
"""

import flax.linen as nn
import jax
import numpy as np

from samscale import losses, tasks
from samscale.config import Config
from samscale.study import Study, methods, nuisance, published, repeated, scientific

BASE = Config(
    task="samscale.studies.two_layer_test_error:get_task",
    num_neurons=(1_000,),
    batch_size=50,
    num_epochs=800,
    lr_scheduler="step",
    momentum=0.0,
    weight_decay=0.0,
)
PAPER = published(
    x=(400, 2_000, 4_000, 20_000, 40_000, 200_000),  # trained weights: 4 a neuron
    usam=(14.63, 13.35, 12.08, 9.49, 8.54, 4.13),
    source="Shin et al., UAI 2025, figure 22: best of its grids, unit not stated",
)
NUM_TRAIN, NUM_VALIDATION, NUM_TEST, NUM_INPUTS = 1_000, 1_000, 5_000, 4


class TwoLayer(nn.Module):
    r"""$\sum_r a_r \max(w_r^\top x + b_r, 0)$, of which w alone is trained."""

    width: int

    @nn.compact
    def __call__(self, x, train=False):  # (batch, NUM_INPUTS) -> (batch, 1)
        del train
        narrow = self.width**-0.5  # variance 1 / width
        w = self.param("kernel", nn.initializers.normal(narrow), (NUM_INPUTS, self.width))
        return nn.relu(x @ w + self.fixed("b", narrow)[None]) @ self.fixed("a", 1.0)[:, None]

    def fixed(self, name, deviation):
        """A draw of this run that is no parameter: it goes into ``stats`` and stays as it is."""
        draw = lambda: deviation * jax.random.normal(self.make_rng("params"), (self.width,))
        return self.variable("fixed", name, draw).value


def examples(rng, n):
    r"""On the unit sphere: $y = (\sin 3x_1 + \sin 3x_2 + \sin 3x_3 - 2)^2 \cos 7x_4$."""
    x = rng.standard_normal((n, NUM_INPUTS))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    y = (np.sin(3 * x[:, :3]).sum(1, keepdims=True) - 2) ** 2 * np.cos(7 * x[:, 3:])
    return {"x": x.astype(np.float32), "y": y.astype(np.float32)}


def get_task(config):
    rng = np.random.default_rng(0)  # not the run's: every run has these examples
    train, validation, test = (examples(rng, n) for n in (NUM_TRAIN, NUM_VALIDATION, NUM_TEST))
    model = TwoLayer(config.num_neurons[0])
    init, loss = tasks.supervised(model, tasks.squared, example=train)
    about = {"outputs": tasks.predictor(model), "criterion": losses.squared_errors}
    return tasks.Task(train, validation, test, init, loss, monitor="loss", maximize=False, **about)


def get_study():
    return Study(
        question="Does SAM help a two-layer network with a fixed head more where it is wider?",
        base=BASE,
        axes=(
            scientific("num_neurons", [(m,) for m in (100, 500, 1_000, 5_000, 10_000, 50_000)]),
            methods(BASE, "sgd", "sgd_2x", "usam"),
            nuisance("learning_rate", [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1]),
            nuisance("rho", [1e-5, 1e-4, 1e-3, 1e-2], only=["usam"]),
            repeated("seed", [1, 2, 3]),
        ),
        metric="loss",
        maximize=False,
        paper=PAPER,
    )
