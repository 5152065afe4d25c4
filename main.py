"""Train one network.

    python main.py --workdir=DIR --config=configs/mnist_mlp.py --config.num_neurons='(1200, 400)'

Kept short on purpose: what can be tested lives in the package.
"""

import sys

from samscale import cli

if __name__ == "__main__":
    sys.exit(cli.train(sys.argv))
