"""What each method of the family costs beside SGD, next to what its documentation says.

Time: steps of one compiled epoch, all programs taking turns. A gradient of a step is what SGD's
takes; the rest of a step (the optimizer's update, the data) is done once, so that a method may come
out below its cost. Memory: temporary, of the compiled program, in copies of the parameters.
"""

import dataclasses

from benchmarks.cost import RESNET, memory
from benchmarks.mlp import MNIST
from benchmarks.timing import Row, best, epoch
from samscale.sharpness import PRESETS
from samscale.training.compiled import Compiled

AIMS = {"looksam": 1.35, "periodic_sam": 1.2, "random_sam": 1.1, "momentum_sam": 1.1}  # k = 5, 10
MARGIN = 1.1


def rows():
    mlp = dataclasses.replace(MNIST, num_neurons=(1200, 400), sam_groups=-1, rho=-1.0)
    yield from _family(mlp, "MLP [1200, 400]", 60, rounds=5)
    yield from _family(dataclasses.replace(RESNET, sam_groups=-1, rho=-1.0), "ResNet18 16", 10, 3)


def _family(config, title, count, rounds):
    names = ["sgd", *PRESETS]
    if config.model == "MLP":
        names.remove("sam_on")  # nothing to perturb
    configs = {n: dataclasses.replace(config, optimizer=n).validate() for n in names}
    machines = {n: Compiled(c) for n, c in configs.items()}
    runs = {n: epoch(machines[n], configs[n], count) for n in names}
    seconds = best(runs, rounds)
    base, size = memory(machines["sgd"], configs["sgd"])
    for name in names[1:]:
        documented = machines[name].program.gradients(count) / count
        temporary, _ = memory(machines[name], configs[name])
        yield Row(
            f"{title}: {name} / SGD",
            seconds[name] / seconds["sgd"],
            f"documented {documented:.2f} gradients; {1e3 * seconds[name] / count:.2f} ms a step; "
            f"memory + {(temporary - base) / size:.1f} parameters",
            at_most=AIMS.get(name, round(MARGIN * documented, 2)),
        )
