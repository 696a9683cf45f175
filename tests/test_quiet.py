"""Commands on machines that lack something: no TPU, a home or a run folder that cannot be written.
They print one line about it, or nothing.
"""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tinyjax import backends, report
from tinyjax.errors import UserError

ROOT = Path(__file__).parents[1]
NO_HOME = "/dev/null/home"  # cannot be created, not even by root


def run_python(code, **environment):
    """Run code as a user would: without the variables that the tests set for themselves."""
    inherited = {
        k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XDG_", "TF_", "MPL"))
    }
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=inherited | environment,
    )


@pytest.mark.skipif(not find_spec("libtpu"), reason="needs libtpu")
@pytest.mark.skipif(any(Path("/dev").glob("accel[0-9]*")), reason="this machine has a TPU")
@pytest.mark.parametrize("module", ["tinyjax.core", "tinyjax.run.runtime"])
def test_libtpu_is_silent_without_a_tpu(module):
    done = run_python(
        f"import {module}, jax; print(jax.default_backend(), jax.numpy.ones(2).sum())"
    )
    assert done.stdout.split()[-1] == "2.0"
    assert done.stderr == ""
    assert done.stdout.split()[0] != "tpu"


def test_jax_looks_for_a_tpu_only_where_there_may_be_one(monkeypatch, tmp_path):
    registered = []
    monkeypatch.setattr(backends, "register_backend_factory", lambda *a, **_: registered.append(a))
    monkeypatch.setattr(backends, "TPU_DEVICES", (f"{tmp_path}/accel[0-9]*",))
    monkeypatch.delenv("JAX_FORCE_TPU_INIT", raising=False)
    backends.skip_missing_tpu()
    assert [name for name, _ in registered] == ["tpu"]
    monkeypatch.setenv("JAX_FORCE_TPU_INIT", "1")
    backends.skip_missing_tpu()
    monkeypatch.delenv("JAX_FORCE_TPU_INIT")
    (tmp_path / "accel0").touch()
    backends.skip_missing_tpu()
    assert len(registered) == 1


@pytest.mark.slow
def test_slow_compilation_is_silent():
    """XLA reports slow constant folding with the alarm that it has for slow compilation."""
    code = (
        "import {module}, jax, jax.numpy as jnp\n"
        "fold = lambda: jax.lax.reduce_window(\n"
        "    jnp.ones((150, 150)), 0.0, jax.lax.add, (16, 16), (1, 1), 'SAME')\n"
        "jax.jit(lambda x: x + fold())(1.0)\n"
    )
    assert run_python(code.format(module="tinyjax"), JAX_PLATFORMS="cpu").stderr == ""
    noisy = run_python(code.format(module="sys"), JAX_PLATFORMS="cpu").stderr
    assert "slow_operation_alarm" in noisy


def test_home_that_cannot_be_written_is_one_line():
    code = (
        "import jax, tinyjax.reporting.plotting\n"
        "from tinyjax.run import logs, runtime\n"
        "logs.start_log()\n"
        "assert runtime.enable_compile_cache() is None\n"
        "jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)\n"
        "jax.jit(lambda x: x + 1)(1.0)\n"
    )
    done = run_python(code, HOME=NO_HOME, JAX_PLATFORMS="cpu")
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"compiled programs are not kept: {NO_HOME}/.cache/tinyjax/")
    assert "Not a directory; set JAX_COMPILATION_CACHE_DIR" in line
    assert done.stderr == ""


def test_scores_are_printed_if_they_cannot_be_saved(train_once, tmp_path, capsys):
    folder = shutil.copytree(train_once("detector") / "run", tmp_path / "run")
    (folder / "evaluations").touch()  # where the folder of this name would be
    with pytest.raises(UserError, match="a report needs its evaluation, which could not be saved"):
        report.main([str(folder)])
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("AP50", "person", "val", "day"))
    assert "the scores are not saved, or not all of them: " in printed
    assert f"{folder}/evaluations" in printed
    assert "scores are written to" not in printed


READ_ONLY = (
    "import sys, tests.tiny_backbones; from tinyjax.evaluate import main; "
    "sys.exit(main(['--workdir', sys.argv[1]]))"
)


@pytest.mark.slow
def test_read_only_run_folder_is_evaluated(train_once, tmp_path):
    folder = shutil.copytree(train_once("detector") / "run", tmp_path / "run")
    python = [sys.executable, "-c", READ_ONLY, str(folder)]
    if os.geteuid() == 0:  # file modes do not bind root
        mount = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0"'
        if (
            not shutil.which("unshare")
            or subprocess.run(
                ["unshare", "-m", "sh", "-c", mount, folder], capture_output=True
            ).returncode
        ):
            pytest.skip("as root, a read-only folder needs a mount namespace")
        python = ["unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', str(folder), *python]
    else:
        folder.chmod(0o555)
    done = subprocess.run(python, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "AP50" in done.stdout
    assert "the scores are not saved, or not all of them: " in done.stdout
    assert done.stderr == ""
    assert not (folder / "evaluations").exists()
