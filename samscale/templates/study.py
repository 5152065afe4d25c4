"""My question: does SAM help more where my network is wider?

    samscale study {file} --workdir=runs --dry-run    # what it costs
    samscale study {file} --workdir=runs              # run it; the same again resumes

It runs as it is, in about a minute on two cores. Replace the base config and the axes by yours.
"""

from samscale.config import Config
from samscale.study import Study, methods, nuisance, repeated, scientific

# What all runs have in common. `samscale train --help` lists every option of a Config. For a
# network and data of your own, set task="my_module:get_task" instead of dataset and model:
# docs/own_task.md.
BASE = Config(
    dataset="digits",
    model="MLP",
    validation_fraction=0.2,  # the radius is chosen on these examples, never on the test examples
    batch_size=64,
    num_epochs=10,
    learning_rate=0.1,
)


def get_study():
    return Study(
        question="Does SAM help more where an MLP on handwritten digits is wider?",
        base=BASE,
        axes=(
            # The sizes: the horizontal axis of the figure. Three or more can show a trend.
            scientific("num_neurons", [(8,), (16,), (32,)]),
            # The methods, baseline first. sgd_2x trains twice as long, so it has SAM's compute.
            methods(BASE, "sgd", "sgd_2x", "sam"),
            # Values that are chosen on validation, anew at each size, for the methods named.
            nuisance("rho", [0.05, 0.1, 0.2], only=["sam"]),
            # What repeats: differences are paired by seed, and intervals are over seeds.
            repeated("seed", range(3)),
        ),
    )
