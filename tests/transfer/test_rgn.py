"""The two relative gradient norms, against values computed by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tinyjax import models
from tinyjax.transfer import rgn

# [kH 2, kW 1, I 2, O 1]: kernels of the first and the second input channel
WEIGHTS = jnp.array([[0.5, -0.2], [-0.3, 0.1]]).reshape(2, 1, 2, 1)
GRADIENTS = [
    jnp.array([[0.1, 0.02], [0.3, -0.04]]).reshape(2, 1, 2, 1),
    jnp.array([[-0.3, 0.0], [0.1, 0.06]]).reshape(2, 1, 2, 1),
]


def test_kernel_rgn_by_hand():
    mean = np.mean([rgn.kernel_rgn(g, WEIGHTS) for g in GRADIENTS], axis=0)
    assert mean.shape == (1, 1, 2, 1)
    np.testing.assert_allclose(mean.ravel(), [0.5, 0.2], rtol=1e-6)
    assert mean.mean() == pytest.approx(0.35)
    bias = rgn.kernel_rgn(jnp.array([0.02, 0.2]), jnp.array([0.1, -0.4]))
    np.testing.assert_allclose(bias, [0.2, 0.5], rtol=1e-6)


def test_tensor_rgn_by_hand():
    mean = np.mean([rgn.tensor_rgn(g, WEIGHTS) for g in GRADIENTS])
    assert mean == pytest.approx(0.5134, abs=1e-4)
    assert rgn.tensor_rgn(jnp.zeros(3), jnp.zeros(3)) == 0  # padding


@pytest.mark.parametrize("norm", [rgn.kernel_rgn, rgn.tensor_rgn])
def test_norms_are_proportional_to_the_loss_and_inverse_to_the_weights(norm):
    value = norm(GRADIENTS[0], WEIGHTS)
    np.testing.assert_allclose(norm(3 * GRADIENTS[0], WEIGHTS), 3 * value, rtol=1e-6)
    np.testing.assert_allclose(norm(GRADIENTS[0], 3 * WEIGHTS), value / 3, rtol=1e-6)


def test_layers_are_ordered_by_depth_and_have_equal_weight():
    params, _ = jax.eval_shape(
        lambda: models.init(models.build("efficientnet/b-4"), 0, (1, 64, 64, 1))
    )
    paths = [f"backbone/{path}" for path in params]
    counted = sorted(filter(rgn.in_backbone_rgn, paths), key=rgn.depth_key)
    assert counted[0] == "backbone/stem/kernel"
    assert counted[-1] == "backbone/stage7/block0/project/kernel"
    block = [path.split("/")[-2] for path in counted if "stage3/block0" in path]
    assert block == ["expand", "depthwise", "project"]
    assert not any("/se/" in path or "/bn/" in path for path in counted)
    kernels = {counted[0]: np.array([1.0, 3.0]), counted[1]: np.full(100, 4.0)}
    rows = rgn.layer_rows(kernels, dict.fromkeys(kernels, 0.5))
    assert [row["path"] for row in rows] == counted[:2]
    assert [row["mean"] for row in rows] == [2, 4]
    assert (rows[0]["median"], rows[0]["p5"], rows[0]["p95"]) == pytest.approx((2, 1.1, 2.9))
    assert rgn.backbone_rgn(rows) == 3  # not 3.96, the mean of all kernels


def test_auto_lr_multipliers():
    ratios, mask = jnp.array([0.1, 0.4, 9.0, 0.0]), np.array([True, True, False, True])
    np.testing.assert_allclose(
        rgn.auto_lr_multipliers(ratios, mask, jnp.float32(1)), [0.25, 1, 1, 0]
    )
    np.testing.assert_allclose(
        rgn.auto_lr_multipliers(ratios, mask, jnp.float32(0.5)), [0.5, 1, 1, 0]
    )
    np.testing.assert_array_equal(rgn.auto_lr_multipliers(ratios, mask, jnp.float32(0)), np.ones(4))
    zero = rgn.auto_lr_multipliers(jnp.zeros(4), mask, jnp.float32(1))
    np.testing.assert_array_equal(zero, [0, 0, 1, 0])
