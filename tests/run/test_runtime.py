"""Memory checks, the memory allocator and the compilation cache."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tinyjax import errors
from tinyjax.run import runtime


def test_dataset_that_does_not_fit_is_an_error(monkeypatch):
    images = np.zeros((512, 64, 64, 1), np.uint8)  # 2 MiB
    monkeypatch.setattr(runtime, "free_memory", lambda: 2**21)
    runtime.check_dataset_fits({"image": images})
    monkeypatch.setattr(runtime, "free_memory", lambda: 2**20)
    message = r"data\.train: 512 images need 0\.00 GiB on the device, .*data\.common\.size"
    with pytest.raises(errors.UserError, match=message):
        runtime.check_dataset_fits({"image": images})


@pytest.mark.skipif(sys.platform != "linux", reason="needs glibc's malloc")
def test_tune_allocator_keeps_the_memory_of_a_program():
    """Repeated calls of a program do not page-fault its scratch space again."""
    code = (
        "import resource, sys\n"
        "from tinyjax.run import runtime\n"
        "if sys.argv[1] == 'kept': runtime.tune_allocator()\n"
        "import jax, jax.numpy as jnp\n"
        "call = jax.jit(lambda x: (jnp.sin(x) @ x[:8].T).sum())\n"
        "x = jnp.ones((2**13, 5 * 2**8))\n"  # 40 MiB: more than glibc keeps by itself
        "for _ in range(2): call(x).block_until_ready()\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(2): call(x).block_until_ready()\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)\n"
    )
    kept, returned = (
        int(subprocess.run([sys.executable, "-c", code, mode], capture_output=True, text=True,
                           check=True).stdout)
        for mode in ("kept", "returned")
    )  # fmt: skip
    assert kept < returned / 4


@pytest.mark.slow
def test_compile_cache_is_in_a_folder_per_processor(tmp_path):
    """A second process uses it as well; $JAX_COMPILATION_CACHE_DIR replaces it."""
    code = (
        "import jax, jax.numpy as jnp\n"
        "from tinyjax.run import runtime\n"
        "hits = []\n"
        "jax.monitoring.register_event_listener(lambda name, **_: hits.append(name))\n"
        "jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)\n"
        "folder = runtime.enable_compile_cache()\n"
        "jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((8, 8)))\n"
        "print(folder, sum(name.endswith('cache_hits') for name in hits))\n"
    )
    custom = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "custom")}
    default = {k: v for k, v in os.environ.items() if k not in custom}
    default["XDG_CACHE_HOME"] = str(tmp_path / "caches")
    (first, first_hits), (second, second_hits), (third, _) = (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                       env=env).stdout.split()
        for env in (default, default, {**default, **custom})
    )  # fmt: skip
    assert first == second
    assert Path(first).parent == tmp_path / "caches" / "tinyjax"
    assert (int(first_hits), int(second_hits) > 0) == (0, True)
    assert third == custom["JAX_COMPILATION_CACHE_DIR"]
