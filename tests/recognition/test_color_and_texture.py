"""Changes of color and texture against torchvision's and Pillow's, and against scipy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from tests.recognition import make_augmentation_references as references
from tinyjax.recognition import color, texture

IMAGE = jnp.float32(references.image()) / 255


@pytest.fixture(scope="module")
def stored():
    with np.load(references.FILE) as file:
        return dict(file)


@pytest.fixture(scope="module")
def gray(stored):
    return jnp.float32(stored["gray"])[..., None] / 255


def test_luminance(stored):
    """Pillow rounds to 8 bits."""
    np.testing.assert_allclose(
        255 * color.luminance(IMAGE)[..., 0], stored["gray"], atol=0.502, rtol=0
    )


@pytest.mark.parametrize("factor", references.FACTORS)
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_adjustments(stored, name, factor):
    """torchvision's weights of the luminance differ by 1e-4."""
    out = getattr(color, f"adjust_{name}")(IMAGE, factor)
    np.testing.assert_allclose(out, stored[f"{name}.{factor}"], atol=1e-4)


@pytest.mark.parametrize("turns", references.TURNS)
def test_hue(stored, turns):
    out = jax.jit(color.adjust_hue)(IMAGE, turns)
    np.testing.assert_allclose(out, stored[f"hue.{turns}"], atol=2e-6)


def test_sharpen(stored, gray):
    """Pillow rounds to 8 bits, and does not change the border."""
    out = 255 * texture.sharpen(gray, 1 / 8)[..., 0]
    np.testing.assert_allclose(out[1:-1, 1:-1], stored["sharpen"][1:-1, 1:-1], atol=0.51)


@pytest.mark.parametrize("quality", references.QUALITIES)
def test_jpeg(stored, gray, quality):
    """libjpeg computes with integers, which changes some levels by one; a coefficient in the middle
    between two steps may be rounded the other way, which changes its block.
    """
    out = 255 * np.asarray(jax.jit(texture.jpeg)(gray, quality)[..., 0])
    difference = np.abs(out - stored[f"jpeg.{quality}"])
    blocks = [difference[i : i + 8, j : j + 8].max() for i in (0, 8, 16) for j in (0, 8, 16, 24)]
    assert (np.array(blocks) > 1.01).sum() <= 1
    assert difference.mean() < 0.2
    assert np.abs(out - stored["gray"]).mean() > 2


@pytest.mark.parametrize("radius", [0.0, 0.5, 1.0, 2.3])
def test_defocus(gray, radius):
    """A disk as an average of scipy's; up to 0.5 nothing changes."""
    out = texture.defocus(gray, radius, 2.5)
    distance = np.hypot(*np.mgrid[-4:5, -4:5])
    disk = np.clip(radius + 0.5 - distance, 0, 1)
    expected = ndimage.convolve(np.asarray(gray[..., 0]), disk / disk.sum(), mode="reflect")
    np.testing.assert_allclose(out[..., 0], expected, atol=1e-5)
    assert (np.abs(out - gray).max() < 1e-6) == (radius <= 0.5)
