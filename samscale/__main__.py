"""``python -m samscale`` is ``samscale``: modules of the current folder do not come first."""

import os
import sys

# Python puts the current folder there, which may hold somebody else's results and anything called
# ``json.py``; ``named`` puts it back where code of the user's own is wanted.
if sys.path[:1] in ([""], [os.getcwd()]) and not sys.flags.safe_path:
    del sys.path[0]

from samscale.cli import main

if __name__ == "__main__":
    sys.exit(main())
