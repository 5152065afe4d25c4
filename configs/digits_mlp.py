"""Handwritten digits, MLP: seconds on one core. 1,797 images of 8x8 pixels, embedded.

python main.py --workdir=runs --config=configs/digits_mlp.py --config.num_neurons='(64, 32)'
"""

from samscale.config import Config


def get_config():
    return Config(
        dataset="digits",
        num_neurons=(32, 16),
        optimizer="sam",
        rho=-1.0,  # the method's own: 0.05 of sam
        learning_rate=0.1,
        lr_scheduler="cosine",
        weight_decay=1e-4,
        batch_size=64,
        num_epochs=20,
    )
