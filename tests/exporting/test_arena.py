"""The arena of activations, with values by hand."""

import jax.numpy as jnp
import pytest

from tinyjax.exporting import onnx
from tinyjax.exporting.arena import Buffer, arena_bytes, place
from tinyjax.exporting.functions import ExportedFunction


@pytest.mark.parametrize(
    ("buffers", "size"),
    [
        ([], 0),
        ([Buffer(100, 0, 1)], 112),  # aligned to 16
        ([Buffer(64, 0, 1), Buffer(32, 1, 2)], 96),  # alive together
        ([Buffer(64, 0, 1), Buffer(32, 2, 3)], 64),  # one after the other
        # The last one reuses the memory of the first.
        ([Buffer(64, 0, 1), Buffer(32, 1, 2), Buffer(64, 2, 3)], 96),
        # The middle one is alive with both others, which share their bytes.
        ([Buffer(48, 0, 1), Buffer(160, 1, 2), Buffer(96, 2, 3)], 256),
        # The third begins where the second did, 16 is alive with both.
        ([Buffer(128, 0, 4), Buffer(64, 0, 1), Buffer(16, 1, 4), Buffer(48, 2, 3)], 208),
    ],
)
def test_buffers_alive_at_the_same_time_do_not_overlap(buffers, size):
    assert place(buffers) == size


def test_largest_sum_of_a_chain_and_a_skip(tmp_path):
    """48 values: a is alive until the sum of a and c, b while c is computed."""

    def call(image):
        a = jnp.exp(image)
        b = jnp.concatenate([a, a], -1)
        c = jnp.exp(b)[..., :3]
        return {"y": a + c}

    model = onnx.write(ExportedFunction(call, (4, 4, 3), "float32", {}), tmp_path / "a.onnx", 1)
    assert arena_bytes(model) == 48 + 96 + 96
