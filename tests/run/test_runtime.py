"""What is refused before a run starts because it would not fit."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tinyjax import errors
from tinyjax.run import runtime


def test_a_set_that_does_not_fit_says_what_it_needs(monkeypatch):
    images = np.zeros((512, 64, 64, 1), np.uint8)  # 2 MiB
    monkeypatch.setattr(runtime, "memory", lambda: 2**21)
    runtime.check_dataset_fits(images)
    monkeypatch.setattr(runtime, "memory", lambda: 2**20)
    message = r"data\.train: 512 images need 0\.00 GiB on the device, .*data\.common\.size"
    with pytest.raises(errors.UserError, match=message):
        runtime.check_dataset_fits(images)


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc's malloc")
def test_a_programs_memory_stays_with_the_process():
    """The scratch space of a program is not taken from the kernel again at each call, page by
    page.
    """
    code = (
        "import resource, sys\n"
        "from tinyjax import startup\n"
        "if sys.argv[1] == 'kept': startup.keep_memory()\n"
        "import jax, jax.numpy as jnp\n"
        "call = jax.jit(lambda x: (jnp.sin(x) @ x[:8].T).sum())\n"
        "x = jnp.ones((2**13, 2**11))\n"  # 64 MiB: more than glibc keeps by itself
        "for _ in range(2): call(x).block_until_ready()\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(4): call(x).block_until_ready()\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)\n"
    )
    kept, given_back = (
        int(subprocess.run([sys.executable, "-c", code, how], capture_output=True, text=True,
                           check=True).stdout)
        for how in ("kept", "given back")
    )  # fmt: skip
    assert kept < given_back / 4


def test_compiled_programs_are_kept_for_each_processor_on_this_machine(tmp_path):
    """By a second process, too, and not if jax was told another place."""
    code = (
        "import jax, jax.numpy as jnp\n"
        "from tinyjax import startup\n"
        "hits = []\n"
        "jax.monitoring.register_event_listener(lambda name, **_: hits.append(name))\n"
        "jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)\n"
        "folder = startup.keep_programs()\n"
        "jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((8, 8)))\n"
        "print(folder, sum(name.endswith('cache_hits') for name in hits))\n"
    )
    told = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "told")}
    ours = {k: v for k, v in os.environ.items() if k not in told}
    ours["XDG_CACHE_HOME"] = str(tmp_path / "caches")
    (first, none), (again, some), (other, _) = (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                       env=env).stdout.split()
        for env in (ours, ours, {**ours, **told})
    )  # fmt: skip
    assert first == again
    assert Path(first).parent == tmp_path / "caches" / "tinyjax"
    assert (int(none), int(some) > 0) == (0, True)
    assert other == told["JAX_COMPILATION_CACHE_DIR"]
