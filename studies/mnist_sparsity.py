"""Width, or number of parameters? Wider and sparser at one number of them (figures 13-15).

samscale study studies/mnist_sparsity.py --workdir=runs --epochs=10

Pruned at initialization so that 61,035 weights and biases are left: those of the dense [75, 25].
"""

from samscale.config import Config
from samscale.study import Study, methods, nuisance, published, repeated, scientific

BASE = Config(
    dataset="mnist",
    num_epochs=100,
    learning_rate=0.1,
    lr_scheduler="step",
    weight_decay=1e-4,
    validation_fraction=0.1,
)
NEURONS = ((75, 25), (150, 50), (300, 100), (1200, 400))
SPARSITY = (0.0, 0.51573, 0.77226, 0.95829)  # (parameters - 61,035) / kernel weights
SIZES = {
    f"{list(n)} at {s:.0%}": {"num_neurons": n, "sparsity": s}
    for n, s in zip(NEURONS, SPARSITY, strict=True)
}
PAPER = {  # digitized
    "pruner=random": published(
        x=SPARSITY,
        gain=(0.00073, 0.00153, 0.0017, 0.00277),
        sgd=(0.98197, 0.98193, 0.98183, 0.97333),
        sam=(0.9827, 0.98347, 0.98353, 0.9761),
    ),
    "pruner=snip": published(
        x=SPARSITY,
        gain=(0.00073, 0.00087, 0.00147, 0.00187),
        sgd=(0.98197, 0.98477, 0.9839, 0.9823),
        sam=(0.9827, 0.98563, 0.98537, 0.98417),
    ),
    "source": "Shin et al., UAI 2025, figures 13-15: radius chosen on test",
}


def get_study():
    return Study(
        question="At 61,035 parameters, does SAM help more where the MLP is wider and sparser?",
        base=BASE,
        axes=(
            scientific("size", SIZES),
            scientific("pruner", ["random", "snip"]),
            methods(BASE, "sgd", "sgd_2x", "sam"),
            nuisance("rho", [0.01, 0.02, 0.05, 0.1, 0.2], only=["sam"]),
            repeated("seed", [1, 2, 3]),
        ),
        x="sparsity",
        paper=PAPER,
    )
