"""Wrong labels (figure 5a, there on CIFAR-10). Is SAM's gain there, and is it SAM's merit?

samscale study studies/fashion_mnist_label_noise.py --workdir=runs --epochs=10

In the paper the gain grows with width because SGD collapses: the report says where it does. The
radius is chosen on clean labels.
"""

from samscale.config import Config
from samscale.study import Study, methods, nuisance, repeated, scientific

BASE = Config(
    dataset="fashion_mnist",
    num_epochs=30,
    learning_rate=0.1,
    lr_scheduler="step",
    weight_decay=1e-4,
    validation_fraction=0.1,
    noise_kind="symmetric",  # the paper does not say which
)


def get_study():
    return Study(
        question="Does SAM help a wider MLP more where labels of Fashion-MNIST are wrong?",
        base=BASE,
        axes=(
            scientific("num_neurons", [(75, 25), (300, 100), (1200, 400)]),
            scientific("label_noise", [0.25, 0.5, 0.75]),
            methods(BASE, "sgd", "sgd_2x", "sam"),
            nuisance("rho", [0.02, 0.05, 0.1, 0.2, 0.5], only=["sam"]),
            repeated("seed", [1, 2, 3]),
        ),
    )
