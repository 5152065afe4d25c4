"""Does SAM help more where a network of one's own, on data of one's own, is wider?

samscale study examples/own_study.py --workdir=runs/own
"""

from samscale.config import Config
from samscale.study import Study, methods, nuisance, repeated, scientific

BASE = Config(
    task="examples.own_task:get_task",  # module:function, as seen from where the command is run
    validation_fraction=0.25,
    batch_size=64,
    num_epochs=60,
    learning_rate=0.1,
)


def get_study():
    return Study(
        question="Does SAM help more where a gated network on noisy waveforms is wider?",
        base=BASE,
        axes=(
            scientific("num_filters", [8, 64]),
            methods(BASE, "sgd", "sgd_2x", "sam"),
            nuisance("rho", [0.05, 0.2], only=["sam"]),
            repeated("seed", range(3)),
        ),
    )
