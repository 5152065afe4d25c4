"""Training one network: pure steps (``step``, ``program``), then the disk (``run``)."""
