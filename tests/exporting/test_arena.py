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
        ([Buffer(5, 0, 1), Buffer(7, 1, 2)], 12),  # alive together
        ([Buffer(5, 0, 1), Buffer(7, 2, 3)], 7),  # one after the other
        # The middle one is alive with both others, which share their bytes.
        ([Buffer(4, 0, 1), Buffer(10, 1, 2), Buffer(6, 2, 3)], 16),
        # 3 begins where 4 did, 2 is alive with both.
        ([Buffer(8, 0, 4), Buffer(4, 0, 1), Buffer(2, 1, 4), Buffer(3, 2, 3)], 14),
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
