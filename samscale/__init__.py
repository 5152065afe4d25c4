"""samscale measures how sharpness-aware minimization (SAM) pays off as networks grow."""

__version__ = "0.1.0"
