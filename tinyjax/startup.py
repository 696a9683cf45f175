"""What a run says of itself before it starts, and whether it will fit."""

import ctypes
import sys
from typing import Any

import jax
import numpy as np
import psutil

from tinyjax.errors import UserError

M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8  # of glibc's malloc.h
MADV_HUGEPAGE, HUGE_PAGE = 14, 2**21  # of Linux's mman.h; bytes


def devices() -> str:
    """Platform, devices and their memory, in a line."""
    all_of_them = jax.devices()
    kind = all_of_them[0].device_kind
    free = memory() / 2**30
    return f"{jax.default_backend()}, {len(all_of_them)} x {kind}, {free:.1f} GiB of memory free"


def memory() -> int:
    """Bytes that are free on the first device; on a CPU, what the machine has available."""
    stats = jax.devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    return psutil.virtual_memory().available


def keep_memory() -> None:
    """Let the process keep the memory it frees, in huge pages where the kernel lends them.

    glibc gives blocks as large as a step's scratch space back to the kernel at once, and the next
    step takes them again page by page; and a step walks through more of them than the processor can
    translate. Together that is half of a step on CPU (docs/performance.md). Nothing is taken
    here: only addresses are reserved.
    """
    if sys.platform != "linux" or not hasattr(libc := ctypes.CDLL(None), "mallopt"):
        return
    libc.mallopt(M_TRIM_THRESHOLD, -1)  # never
    libc.mallopt(M_MMAP_MAX, 0)
    libc.mallopt(M_ARENA_MAX, 1)  # the others give large blocks back whatever was said
    libc.malloc.restype = ctypes.c_void_p
    size = psutil.virtual_memory().available // 2
    if block := libc.malloc(ctypes.c_size_t(size)):
        first = -(-block // HUGE_PAGE) * HUGE_PAGE
        last = (block + size) // HUGE_PAGE * HUGE_PAGE
        libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), MADV_HUGEPAGE)
        libc.free(ctypes.c_void_p(block))


def refuse_large_set(images: np.ndarray) -> None:
    """Raise UserError if a training set does not fit on the device, where it lives whole."""
    wanted, free = images.nbytes, memory()
    if wanted > free:
        raise UserError(
            f"data.train: {len(images)} images need {wanted / 2**30:.2f} GiB on the device, "
            f"{free / 2**30:.2f} GiB are free; give smaller images (data.common.size), or fewer"
        )


def refuse_too_large(program: Any, batch: int) -> None:
    """Raise UserError if a compiled step needs more memory than there is, naming a batch that fits.

    What the step needs beyond its arguments, which are on the device already, grows with the batch.
    """
    if (needs := program.memory_analysis()) is None:
        return
    wanted = needs.temp_size_in_bytes + needs.output_size_in_bytes - needs.alias_size_in_bytes
    if wanted <= (free := memory()):
        return
    fits = int(batch * 0.9 * free / wanted)
    advice = f"batch = {fits} would fit" if fits else "not even batch = 1 would: a smaller crop?"
    raise UserError(
        f"batch = {batch}: a step needs {wanted / 2**30:.2f} GiB, {free / 2**30:.2f} GiB are free; "
        + advice
    )
