"""What a run says of itself before it starts, and whether it will fit."""

import ctypes
import os
import platform
import re
import sys
import zlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
import psutil

from tinyjax.errors import UserError

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
MADV_HUGEPAGE, HUGE_PAGE = 14, 2**21  # of Linux's mman.h; bytes


def describe_devices() -> str:
    """Platform, devices and their memory, in a line."""
    all_of_them = jax.devices()
    kind = all_of_them[0].device_kind
    free, n = free_memory() / 2**30, jax.process_count()
    of = f" of {n} processes" if n > 1 else ""
    many = f"{len(all_of_them)} x {kind}{of}"
    return f"{jax.default_backend()}, {many}, {free:.1f} GiB of memory free"


def free_memory() -> int:
    """Bytes that are free on the first device; on a CPU, what the machine has available."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    return psutil.virtual_memory().available


def total_memory() -> int:
    """Bytes of the first device, in use or not; on a CPU, those of the machine."""
    stats = jax.local_devices()[0].memory_stats()
    return (
        stats["bytes_limit"] if stats and "bytes_limit" in stats else psutil.virtual_memory().total
    )


def tune_allocator() -> None:
    """Let the process keep the memory it frees, in huge pages where the kernel lends them. To be
    called before jax has looked for devices.

    glibc gives blocks as large as a step's scratch space back to the kernel at once, and the next
    step takes them again page by page; and a step walks through more of them than the processor can
    translate. Together that is half of a step on CPU (docs/performance.md). Nothing is taken
    here: only addresses are reserved.
    """
    # A step's scratch space is then taken by this thread: those of others cannot be kept, and one
    # pool of memory for all threads makes them wait for each other, above all in the compiler.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    if sys.platform != "linux" or not hasattr(libc := ctypes.CDLL(None), "mallopt"):
        return
    libc.mallopt(M_TRIM_THRESHOLD, -1)  # never
    libc.mallopt(M_MMAP_MAX, 0)
    libc.malloc.restype = ctypes.c_void_p
    size = psutil.virtual_memory().available // 2
    if block := libc.malloc(ctypes.c_size_t(size)):
        first = -(-block // HUGE_PAGE) * HUGE_PAGE
        last = (block + size) // HUGE_PAGE * HUGE_PAGE
        libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), MADV_HUGEPAGE)
        libc.free(ctypes.c_void_p(block))


def enable_compile_cache() -> Path:
    """Let compiled programs be kept for the next run of the same; returns the folder.

    It is $JAX_COMPILATION_CACHE_DIR or, for each kind of processor, one of the user's own machine:
    a program that was compiled for another processor may crash on this one, so the place is not the
    run folder, which may be shared.
    """
    name = "jax_compilation_cache_dir"
    if jax.config.values[name] is None:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = caches / "tinyjax" / re.sub(r"[^\w.-]+", "_", processor_name())
        jax.config.update(name, str(folder))
    return Path(jax.config.values[name])


def processor_name() -> str:
    """The kind of the first device; of a CPU the model and a number for its abilities."""
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        return device.device_kind
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    about = dict(re.split(r"\s*:\s*", line, maxsplit=1) for line in lines if ":" in line)
    model = about.get("model name", platform.machine())
    abilities = about.get("flags", about.get("Features", ""))
    return f"{model}, {zlib.crc32(abilities.encode()):08x}"


def check_dataset_fits(images: np.ndarray) -> None:
    """Raise UserError if a training set does not fit on the device, where it lives whole."""
    wanted, free = images.nbytes, free_memory()
    if wanted > free:
        raise UserError(
            f"data.train: {len(images)} images need {wanted / 2**30:.2f} GiB on the device, "
            f"{free / 2**30:.2f} GiB are free; give smaller images (data.common.size), fewer, or "
            "leave them on disk (data.stream)"
        )


def check_step_fits(program: Any, batch: int, members: int = 1) -> None:
    """Raise UserError if a compiled step needs more memory than there is, naming a batch that fits,
    or how many members at once.

    What the step needs beyond its arguments, which are on the device already, grows with both.
    members: that a device computes at once.
    """
    if (needs := program.memory_analysis()) is None:
        return
    wanted = needs.temp_size_in_bytes + needs.output_size_in_bytes - needs.alias_size_in_bytes
    if wanted <= (free := free_memory()):
        return
    said = f"a step needs {wanted / 2**30:.2f} GiB, {free / 2**30:.2f} GiB are free"
    if fits := int(members * 0.9 * free / wanted):
        raise UserError(
            f"{members} members at once: {said}; --member-batching chunks:{fits} would fit"
        )
    fits = int(batch * members * 0.9 * free / wanted)
    advice = f"batch = {fits} would fit" if fits else "not even batch = 1 would: a smaller crop?"
    raise UserError(f"batch = {batch}: {said}; {advice}")
