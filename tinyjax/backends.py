"""The backends that jax looks for."""

import os
from glob import glob

from jax.extend.backend import register_backend_factory

# v2 to v4, and later generations, see cloud.google.com/tpu/docs.
TPU_DEVICES = ("/dev/accel[0-9]*", "/dev/vfio/[0-9]*")


def skip_missing_tpu() -> None:
    """Keep jax from starting libtpu where it is installed, but no TPU is. Call it before jax looks
    for devices.

    libtpu would print a page of errors, and wait for a metadata server. Compiling for a TPU
    (`tinyjax.preflight`) needs no backend. Not the variable JAX_PLATFORMS, because a job that is
    submitted here inherits it on a machine with a GPU or a TPU.
    """
    if "JAX_FORCE_TPU_INIT" not in os.environ and not any(map(glob, TPU_DEVICES)):
        register_backend_factory("tpu", _raise_no_tpu, priority=300, fail_quietly=True)


def _raise_no_tpu() -> None:
    raise RuntimeError(f"this machine has no TPU ({', '.join(TPU_DEVICES)})")
