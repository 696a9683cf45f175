"""Images as rows of lanes against the array, and what a TPU's compiler does with them."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding

from tinyjax import preflight
from tinyjax.data.planar import to_planar
from tinyjax.population.input_pipeline import batch_at, resident_data


def make_images(count=5, height=6, width=7, channels=3):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, height, width, channels), np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(6, 7), (16, 8), (20, 30)])
def test_selected_images_are_those_of_the_array(height, width, channels):
    images = make_images(5, height, width, channels)
    planar, index = to_planar(jnp.asarray(images)), np.array([[4, 0, 4], [1, 2, 3]])
    assert len(planar) == 5
    selected = jax.jit(jax.vmap(lambda planar, index: planar[index], (None, 0)))(planar, index)
    assert selected.dtype == np.uint8
    np.testing.assert_array_equal(selected, images[index])


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_batches_of_each_platform(platform):
    images, labels = make_images(), np.arange(5)
    task = SimpleNamespace(
        device_arrays=lambda _: {"image": jnp.asarray(images), "labels": jnp.asarray(labels)},
        sample=lambda seed, step, config, data, indices: (
            (seed + jnp.arange(3)) % len(data["image"])
        ),
    )
    data = resident_data(task, None, platform)
    assert isinstance(data["image"], jax.Array) == (platform == "cpu")
    batch = batch_at(task.sample, data, {}, 3, 0, None)
    np.testing.assert_array_equal(batch["labels"], [3, 4, 0])
    np.testing.assert_array_equal(batch["image"], images[[3, 4, 0]])


def test_a_tpu_does_not_copy_the_training_set():
    (chip,) = preflight.find_target("v5litepod-1").devices
    shape = jax.ShapeDtypeStruct((8192, 96, 96, 3), jnp.uint8)
    index = jax.ShapeDtypeStruct((8, 16), jnp.int32, sharding=SingleDeviceSharding(chip))

    def scratch(images):
        def batch_means(images, index):
            return jax.vmap(lambda i: images[i])(index).mean((2, 3))

        placed = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=index.sharding),
            images,
        )
        compiled = jax.jit(batch_means).trace(placed, index).lower().compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert scratch(shape) > 8192 * 96 * 96 * 3
    assert scratch(jax.eval_shape(to_planar, shape)) < 8192 * 96 * 96 * 3 / 4
