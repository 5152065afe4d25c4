"""Whether there is enough memory, and how much of what a process may have is taken."""

import contextlib
import os
import pathlib

import jax

MOST_MAPPINGS = pathlib.Path("/proc/sys/vm/max_map_count")


def check(needed: float) -> None:
    """Raises ``MemoryError`` where a CPU's programs need more than this machine has in all."""
    if jax.default_backend() == "cpu" and needed > (there := _of_host("SC_PHYS_PAGES")):
        gib = lambda size: f"{size / 2**30:,.1f} GiB"
        raise MemoryError(f"{gib(needed)} needed, of {gib(there)}")


def tidy() -> None:
    """Lets compiled programs go where they hold half of the memory mappings that a process may
    have: some thousand each, flatness included. Beyond the limit XLA ends the process."""
    with contextlib.suppress(OSError, ValueError):  # where the system does not tell, it has no such
        most = int(MOST_MAPPINGS.read_text())
        if pathlib.Path("/proc/self/maps").read_bytes().count(b"\n") > most // 2:
            jax.clear_caches()


def _of_host(pages) -> float:
    return os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")
