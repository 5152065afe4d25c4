"""``python -m samscale`` is ``samscale``."""

import sys

from samscale.cli import main

if __name__ == "__main__":
    sys.exit(main())
