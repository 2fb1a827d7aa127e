"""Keep freed memory in the process, where the CPU computes.

XLA's CPU back end allocates a step's temporaries anew each step. The C library hands such large blocks back to the
kernel and gets them again page by page: 180,000 page faults and 0.3 s of system time in a step of BERT-mini, a fifth
of it. Kept in the process, there are none (docs/performance.md).
"""

import ctypes
import sys

import jax

# Parameters of glibc's mallopt, from malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
    """Tell the C library to reuse large blocks instead of returning them; call it before the first computation.

    Returns:
        Whether it did: on the CPU back end with glibc only. The process then keeps its peak memory.
    """
    if jax.default_backend() != "cpu" or not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        return False
    # One arena that never shrinks, grown by brk alone; blocks of its own for large requests would be unmapped.
    return all(libc.mallopt(name, value) for name, value in ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1)))
