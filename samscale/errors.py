"""How a run may end. Wrong input is a ``ValueError``, and what a disk refuses an ``OSError``."""


class Diverged(FloatingPointError):
    """The loss or its gradient is not finite. What was saved before is kept."""


class Damaged(OSError):
    """A file or folder of ours is not what was written there. One sentence, which names it."""


class Hopeless(RuntimeError):
    """The first cells of a study have all failed for one reason, so the others are not tried."""


class Interrupted(BaseException):
    """A signal asked the run to stop; everything up to here is saved.

    Raised wherever the signal arrives, so no library's ``except Exception`` may swallow it.
    """

    def __init__(self, message: str, signum: int):
        super().__init__(message)
        self.signum = signum
