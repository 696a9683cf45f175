"""Restoring checkpoints, also damaged ones."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tinyjax.core import Variables
from tinyjax.errors import UserError
from tinyjax.run.checkpoints import Checkpoints
from tinyjax.step import init_state


def state(seed):
    rng = np.random.default_rng(seed)
    arrays = {f"w{i}": jnp.asarray(rng.standard_normal(500), jnp.float32) for i in range(8)}
    return {"params": arrays, "step": jnp.asarray(seed)}


def same(a, b):
    return jax.tree.all(jax.tree.map(np.array_equal, a, b))


@pytest.fixture
def folder(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    for step in (1, 2):
        checkpoints.save(step, state(step))
    checkpoints.close()
    return tmp_path / "checkpoints"


def flip_a_bit(step):
    """Flip a bit in the middle of the largest file, which has the arrays."""
    file = max((f for f in step.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def truncate(step):
    file = max((f for f in step.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    file.write_bytes(file.read_bytes()[:100])


def remove_arrays(step):
    shutil.rmtree(step / "state")


def remove_manifest(step):
    (step / "state" / "manifest.ocdbt").unlink()


def corrupt_metadata(step):
    (step / "state" / "_METADATA").write_text("{")


DAMAGES = [flip_a_bit, truncate, remove_arrays, remove_manifest, corrupt_metadata]


def test_restore_is_bitwise_exact(folder):
    assert same(Checkpoints(folder).restore(state(0)), state(2))


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoint_is_skipped_with_a_warning(folder, damage, caplog, monkeypatch):
    monkeypatch.setattr("tinyjax.run.logs.log.propagate", True)
    damage(folder / "2")
    checkpoints = Checkpoints(folder)
    assert same(checkpoints.restore(state(0)), state(1))
    assert "2: this checkpoint is damaged" in caplog.text
    assert (folder / "damaged-2").is_dir()
    checkpoints.save(2, state(2))  # the resumed run reaches this step again
    checkpoints.close()
    assert same(Checkpoints(folder).restore(state(0)), state(2))


def test_failed_reads_in_threads_are_silent(folder, monkeypatch):
    """Reads that fail after the first one has closed their event loop print no tracebacks."""
    shown = []
    monkeypatch.setattr("sys.unraisablehook", shown.append)
    remove_manifest(folder / "2")
    Checkpoints(folder).restore(state(0))
    assert not shown


def test_only_damaged_checkpoints_are_an_error(folder):
    for step in "12":
        flip_a_bit(folder / step)
    for _ in range(2):  # running the same command again must not start over
        with pytest.raises(UserError, match=r"every checkpoint is damaged .*; to start again give"):
            Checkpoints(folder).restore(state(0))


def test_state_of_a_network_without_running_statistics(tmp_path):
    network = Variables({"norm/scale": jnp.arange(3.0)}, {})
    trained = init_state(network, optax.scale_by_adam())
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(1, trained)
    restored = checkpoints.restore(trained)
    checkpoints.close()
    assert same(restored, trained)
    params, stats = restored.variables(restored.weights)
    np.testing.assert_array_equal(params["norm/scale"], [0, 1, 2])
    assert stats == {}
