"""Networks with a width knob: Linen modules, built from plain values.

``build`` returns a module with ``init(key, x)`` and ``apply(variables, x, train=...)``.
"""

from samscale.config import choose
from samscale.laws import WIDTH
from samscale.models.mlp import MLP
from samscale.models.resnet import ResNet, ResNet18, ResNet50

__all__ = ["MLP", "MODELS", "ResNet", "ResNet18", "ResNet50", "build"]


def _mlp(num_outputs, dtype, num_neurons=(300, 100), dropout=0.0, **_):
    return MLP(num_neurons, num_outputs, dropout, dtype)


def _resnet(default):
    def build(num_outputs, dtype, num_filters=64, num_blocks=(), **_):
        blocks = {"num_blocks": num_blocks} if num_blocks else {}
        if num_blocks and not WIDTH.holds(last := num_filters * 2 ** (len(num_blocks) - 1)):
            raise ValueError(
                f"num_blocks: {len(num_blocks)} stages are too many: filters double with each, and "
                f"the last's, {last}, must be {WIDTH.words}"
            )
        return default(num_filters, num_outputs, dtype=dtype, **blocks)

    return build


MODELS = {"MLP": _mlp, "ResNet18": _resnet(ResNet18), "ResNet50": _resnet(ResNet50)}


def build(name, num_outputs, *, dtype=None, **knobs):
    """The module ``name`` of ``MODELS``; each takes the knobs it knows.

    ``dtype``: of the computation (None: of the input and the parameters).
    """
    return choose("model", name, MODELS)(num_outputs, dtype, **knobs)
