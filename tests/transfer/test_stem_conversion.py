"""Stems of published weights, converted to another normalization and number of channels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tinyjax.data import augmentation
from tinyjax.errors import UserError
from tinyjax.models.torch_names import IMAGENET_MEAN, IMAGENET_STD
from tinyjax.transfer import pretrained


def stem_output(arrays, x, eps=1e-5):
    """Compute a stem with BatchNorm before its activation, in float64, by lax."""
    with jax.enable_x64(True):
        y = jax.lax.conv_general_dilated(
            jnp.asarray(x), jnp.asarray(arrays["stem/kernel"]), (2, 2), [(1, 1), (1, 1)],
            dimension_numbers=("NHWC", "HWIO", "NHWC"), precision="highest",
        )  # fmt: skip
        slope = arrays["stem/bn/scale"] / np.sqrt(arrays["stem/bn/var"] + eps)
        return np.asarray((y - arrays["stem/bn/mean"]) * slope + arrays["stem/bn/bias"])


@pytest.fixture
def stem():
    """A stem in float64."""
    random = np.random.default_rng(0)
    vectors = {leaf: random.uniform(0.5, 2, 8) for leaf in ("scale", "bias", "mean", "var")}
    kernel = random.standard_normal((3, 3, 3, 8))
    return {"stem/kernel": kernel, **{f"stem/bn/{leaf}": v for leaf, v in vectors.items()}}


def test_stem_output_is_unchanged_by_another_normalization(stem):
    x = np.random.default_rng(1).uniform(0, 1, (2, 16, 20, 3))
    adapted = pretrained.adapt_to_normalization(
        {**stem, "head/kernel": np.ones(3)},
        IMAGENET_MEAN, IMAGENET_STD, augmentation.MEAN, augmentation.STD,
    )  # fmt: skip
    expected = stem_output(stem, (x - IMAGENET_MEAN) / IMAGENET_STD)
    actual = stem_output(adapted, (x - augmentation.MEAN) / augmentation.STD)
    # Windows of size 3, stride 2 and padding 1 reach the padding only in the first row and column.
    np.testing.assert_allclose(actual[:, 1:, 1:], expected[:, 1:, 1:], rtol=0, atol=1e-12)
    assert np.abs(actual[:, 0] - expected[:, 0]).max() > 1e-2
    changed = {path for path in stem if not np.array_equal(stem[path], adapted[path])}
    assert changed == {"stem/kernel", "stem/bn/mean"}
    assert adapted["head/kernel"].tolist() == [1, 1, 1]
    stem32 = {path: array.astype(np.float32) for path, array in stem.items()}
    assert (
        pretrained.adapt_to_normalization(stem32, 0.5, 0.5, 0.4, 0.2)["stem/kernel"].dtype
        == np.float32
    )


def test_stem_output_for_gray_images_is_the_same_in_one_channel_and_three(stem):
    gray = np.random.default_rng(2).standard_normal((2, 16, 20, 1))
    color = np.repeat(gray, 3, axis=-1)
    single = stem | {"stem/kernel": pretrained.convert_stem_channels(stem["stem/kernel"], 1)}
    triple = single | {"stem/kernel": pretrained.convert_stem_channels(single["stem/kernel"], 3)}
    assert single["stem/kernel"].shape == (3, 3, 1, 8)
    assert triple["stem/kernel"].shape == (3, 3, 3, 8)
    expected = stem_output(stem, color)
    np.testing.assert_allclose(stem_output(single, gray), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(stem_output(triple, color), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("current", "new"), [(3, 4), (1, 2), (4, 3), (3, 3)])
def test_other_changes_of_channels_are_rejected(current, new):
    with pytest.raises(
        UserError, match=f"a stem for {current} input channels cannot be converted to {new}"
    ):
        pretrained.convert_stem_channels(np.zeros((3, 3, current, 8)), new)
