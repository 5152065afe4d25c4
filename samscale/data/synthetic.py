"""Data drawn on the spot instead of read: a teacher network and noise."""

import numpy as np

from samscale.data.dataset import generator

NUM_TRAIN, NUM_TEST, NUM_INPUTS = 20_400, 5_100, 100


def _unchanged(x):
    return x


def teacher_student(*, teacher_neurons=200, teacher_scale=1 / 3, teacher_seed=0, **_):
    r"""$y = s \, w_2^\top \mathrm{relu}(W_1 x) + \varepsilon$, $x \sim N(0, I_{100})$,
    $\varepsilon \sim N(0, 1)$, so that 1 is the least mean squared error.

    $W_1$ has entries $N(0, 1/100)$ and $w_2$ entries $N(0, 1/m)$ for m neurons: the variance of
    the signal is about $0.34 s^2$. The sizes (20,400 for training, 5,100 for test, m = 200) are
    those of Shin et al., UAI 2025, appendix A.1, after Advani, Saxe and Sompolinsky, 2020; the
    scale s is not stated there. One third is what PyTorch's default initialization gives.
    """
    rng = generator(teacher_seed, "teacher")
    hidden = rng.standard_normal((NUM_INPUTS, teacher_neurons)) / np.sqrt(NUM_INPUTS)
    out = rng.standard_normal((teacher_neurons, 1)) / np.sqrt(teacher_neurons)

    def draw(n):
        x = rng.standard_normal((n, NUM_INPUTS))
        signal = teacher_scale * np.maximum(x @ hidden, 0) @ out
        y = signal + rng.standard_normal((n, 1))
        return {"x": x.astype(np.float32), "y": y.astype(np.float32)}

    return draw(NUM_TRAIN), draw(NUM_TEST), 1, _unchanged
