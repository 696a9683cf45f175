"""The runtime: devices and their memory, memory allocation, the compilation cache."""

import ctypes
import errno
import os
import platform
import re
import sys
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import psutil

from tinyjax.backends import skip_missing_tpu
from tinyjax.config.paths import parse_path
from tinyjax.errors import UserError
from tinyjax.run.logs import log

skip_missing_tpu()
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's malloc.h
MADV_HUGEPAGE = 14  # Linux's mman.h
HUGE_PAGE = 2**21  # bytes


def describe_devices() -> str:
    """Return platform, devices and free memory as one line of text."""
    devices, processes = jax.devices(), jax.process_count()
    in_processes = f" in {processes} processes" if processes > 1 else ""
    names = f"{len(devices)} x {devices[0].device_kind}{in_processes}"
    free = free_memory() / 2**30
    return f"{jax.default_backend()}, {names}, {free:.1f} GiB of memory free"


def free_memory() -> int:
    """Return the free memory of the first device in bytes; on CPU, the machine's."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    return psutil.virtual_memory().available


def total_memory() -> int:
    """Return the memory of the first device in bytes, used or free; on CPU, the machine's."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"]
    return psutil.virtual_memory().total


def tune_allocator() -> None:
    """Make the process keep freed memory, in huge pages. Call it before jax looks for devices.

    By default glibc returns blocks as large as a step's scratch space to the kernel at once, so
    each step causes page faults again; and with small pages a step's memory exceeds what the
    processor's TLB covers. Together they take half of a step's time on CPU (docs/performance.md).
    This only reserves addresses, no memory.
    """
    # Synchronous dispatch lets this thread allocate a step's scratch space: memory of other threads
    # cannot be kept, and a single arena for all threads would make them wait for each other,
    # particularly in the compiler.
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


def enable_compile_cache() -> Path | None:
    """Enable jax's persistent compilation cache and return its folder; None, with a warning, if the
    folder cannot be written.

    The folder is $JAX_COMPILATION_CACHE_DIR or a folder per processor in the user's cache. It is
    not in the run folder, which other machines may share: a program that was compiled for another
    processor may crash.
    """
    name = "jax_compilation_cache_dir"
    if jax.config.values[name] is None:
        jax.config.update(name, str(_default_cache()))
    if "://" in jax.config.values[name]:
        return parse_path(jax.config.values[name])
    folder = Path(jax.config.values[name])
    try:
        if folder.parts[0] == "~":  # as in containers that run as an unknown user
            raise FileNotFoundError(errno.ENOENT, "this user has no home folder")
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        jax.config.update(name, None)
        log.warning(
            f"compiled programs are not kept: {folder}: {error.strerror}; set "
            "JAX_COMPILATION_CACHE_DIR to a folder that can be written"
        )
        return None


def _default_cache() -> Path:
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(caches) / "tinyjax" / re.sub(r"[^\w.-]+", "_", processor_name())


def processor_name() -> str:
    """Return the model of the first device; for a CPU, with a checksum of its features."""
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        return device.device_kind
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    info = dict(re.split(r"\s*:\s*", line, maxsplit=1) for line in lines if ":" in line)
    model = info.get("model name", platform.machine())
    features = info.get("flags", info.get("Features", ""))
    return f"{model}, {zlib.crc32(features.encode()):08x}"


def check_dataset_fits(inputs: Mapping[str, np.ndarray]) -> None:
    """Raise UserError if a training split does not fit in the free memory of the device.

    inputs: name -> images [N, H, W, C] of the split.
    """
    needed, free = sum(images.nbytes for images in inputs.values()), free_memory()
    if needed > free:
        count = len(next(iter(inputs.values())))
        raise UserError(
            f"data.train: {count} images need {needed / 2**30:.2f} GiB on the device, "
            f"{free / 2**30:.2f} GiB are free; give smaller images (data.common.size), fewer, or "
            "leave them on disk (data.stream)"
        )


def check_step_fits(program: Any, batch: int, members: int = 1) -> None:
    """Raise UserError if a compiled step needs more memory than is free.

    The message names a batch, or a number of concurrent members, that would fit: the memory beyond
    the step's arguments, which are on the device already, grows with both.

    Args:
        program: the compiled step.
        batch: images per member.
        members: number of members that a device computes at once.
    """
    if (analysis := program.memory_analysis()) is None:
        return
    needed = (
        analysis.temp_size_in_bytes + analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    )
    if needed <= (free := free_memory()):
        return
    problem = f"a step needs {needed / 2**30:.2f} GiB, {free / 2**30:.2f} GiB are free"
    if max_members := int(members * 0.9 * free / needed):
        raise UserError(
            f"{members} members at once: {problem}; --member-batching chunks:{max_members} "
            "would fit"
        )
    max_batch = int(batch * members * 0.9 * free / needed)
    advice = (
        f"batch = {max_batch} would fit"
        if max_batch
        else "batch = 1 would not fit either; reduce crop_size"
    )
    raise UserError(f"batch = {batch}: {problem}; {advice}")
