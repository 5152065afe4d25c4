"""A study of a dozen runs that take no time, for tests of what is done with studies."""

from samscale.config import Config
from samscale.study import Study, methods, nuisance, repeated, scientific

BASE = Config(num_neurons=(4,), num_epochs=2, batch_size=100, optimizer="sgd")


def tiny(base=BASE, **changes):
    axes = {
        "size": scientific("num_neurons", [(4,), (8,)]),
        "method": methods(base, "sgd", "sam"),
        "rho": nuisance("rho", [0.05, 0.1], only=["sam"]),
        "seed": repeated("seed", range(2)),
    }
    return Study(question="?", base=base, axes=tuple((axes | changes).values()))


FILE = """
from samscale.cli import words
from samscale.config import Config
from samscale.study import Study, methods, nuisance, repeated, scientific

BASE = Config(num_epochs=2, batch_size=100)

def get_study():
    return Study(
        question="Is <b>wider</b> better?",
        base=BASE,
        axes=(
            scientific("num_neurons", [(4,), (8,)]),
            methods(BASE, "sgd", "sgd_2x", "sam"),
            nuisance("rho", [0.05, 0.1], only=["sam"]),
            repeated("seed", range(2)),
        ),
    )
"""
