"""My network: an MLP on handwritten digits, trained with SAM.

    samscale train --config={file} --workdir=runs --config.rho=0.1

Every option is listed by `samscale train --help`; what is not set here keeps its default.
"""

from samscale.config import Config


def get_config():
    return Config(
        dataset="digits",
        model="MLP",
        num_neurons=(32, 16),
        optimizer="sam",  # or sgd, asam, gsam, ...
        rho=0.05,  # radius of the ascent
        batch_size=64,
        num_epochs=20,
        learning_rate=0.1,
        seed=0,
    )
