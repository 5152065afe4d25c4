"""How a run may end. Wrong input is a ``ValueError``, and what a disk refuses an ``OSError``."""


class Diverged(FloatingPointError):
    """The loss or its gradient is not finite. The last good checkpoint is kept."""


class Interrupted(Exception):
    """A signal asked the run to stop; everything up to here is saved."""

    def __init__(self, message: str, signum: int):
        super().__init__(message)
        self.signum = signum
