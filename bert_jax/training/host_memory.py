"""Keep freed memory in the process, in huge pages, where the CPU computes.

XLA's CPU back end allocates a step's temporaries anew each step. The C library hands such large blocks back to the
kernel and gets them again page by page: 180,000 page faults and 0.3 s of system time in a step of BERT-mini, a third
of it. Kept in the process, and in pages of 2 MB, they cost nothing (docs/performance.md).
"""

import ctypes
import glob
import os
import sys

# Parameters of glibc's mallopt, from malloc.h, and of madvise, from mman.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
_MADV_HUGEPAGE = 14
_HEAP_BYTES = 2**31 - 1  # what the heap grows by: address space only, until it is touched
_PAGE_BYTES = 4096
_ACCELERATORS = ("/dev/nvidia[0-9]*", "/dev/accel*", "/dev/vfio/[0-9]*", "/dev/kfd")  # GPUs and TPUs


def keep_freed_memory() -> bool:
    """Tell the C library to reuse large blocks instead of returning them.

    Call it before jax computes anything: threads that exist already keep arenas of their own, which it does not reach.

    Returns:
        Whether it did: on Linux with glibc, where there is no accelerator or JAX_PLATFORMS is cpu. The process then
        keeps its peak memory.
    """
    has_accelerator = any(glob.glob(pattern) for pattern in _ACCELERATORS)
    if not sys.platform.startswith("linux") or (has_accelerator and os.environ.get("JAX_PLATFORMS") != "cpu"):
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        return False
    # One arena that never shrinks, grown by brk alone; blocks of its own for large requests would be unmapped.
    settings = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, _HEAP_BYTES))
    if not all(libc.mallopt(name, value) for name, value in settings):
        return False
    libc.sbrk.restype = libc.malloc.restype = ctypes.c_void_p
    libc.sbrk.argtypes, libc.malloc.argtypes = (ctypes.c_ssize_t,), (ctypes.c_size_t,)
    libc.free.argtypes, libc.madvise.argtypes = (ctypes.c_void_p,), (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    start = libc.sbrk(0)
    libc.free(libc.malloc(2**28))  # larger than any free block: grows the heap
    start = -(-start // _PAGE_BYTES) * _PAGE_BYTES
    # A kernel without huge pages refuses; the rest holds all the same.
    libc.madvise(start, libc.sbrk(0) - start, _MADV_HUGEPAGE)
    return True
