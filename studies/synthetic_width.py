"""Teacher and student (figure 1). A network of m neurons learns one of 200 from noisy outputs.

samscale study studies/synthetic_width.py --workdir=runs --executor=processes

What the paper leaves open are knobs here: the teacher's scale (``teacher_scale``), the student's
initialization (``init_scale``), half or whole squared error (half is ``learning_rate`` 0.05 here),
``momentum``, ``lr_scheduler``, the last epoch or the best (``value``). See docs/results.md.
"""

from samscale.config import Config
from samscale.study import Study, methods, nuisance, published, repeated, scientific

BASE = Config(
    dataset="teacher_student",
    loss="squared",
    num_epochs=100,
    learning_rate=0.05,
    lr_scheduler="step",
    momentum=0.0,
    weight_decay=0.0,
    init_scale=0.1,  # at 0.58 and more, 1,000 neurons diverge within ten steps
    validation_fraction=0.2,
)
PAPER = published(  # digitized
    x=tuple(102 * m + 1 for m in range(100, 1001, 100)),
    gain=(
        (0.0262, 0.0291, 0.0346, 0.0466, 0.0561, 0.0622, 0.0632, 0.0741, 0.0796, 0.0825),
        (0.001, 0.0044, 0.0035, 0.0009, 0.0032, 0.0031, 0.0034, 0.0033, 0.0032, 0.0025),
    ),
    sgd=(1.0315, 1.0336, 1.0393, 1.0503, 1.0607, 1.0672, 1.0687, 1.0788, 1.0843, 1.0868),
    sam=(1.0054, 1.0046, 1.0048, 1.0037, 1.0046, 1.0051, 1.0054, 1.0047, 1.0047, 1.0043),
    source="Shin et al., UAI 2025, figure 7: radius chosen on test",
)


def get_study():
    radii = [0.001, 0.01, 0.05, 0.07, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 2.0]
    return Study(
        question="Does SAM help a wider student of a noisy teacher more?",
        base=BASE,
        axes=(
            scientific("num_neurons", [(m,) for m in range(100, 1001, 100)]),
            methods(BASE, "sgd", "sgd_2x", "sam"),
            nuisance("rho", radii, only=["sam"]),
            repeated("seed", [1, 2, 3]),
        ),
        metric="loss",
        maximize=False,
        paper=PAPER,
    )
