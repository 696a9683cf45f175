"""Random views: each strength has its effect, on its modality only."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from tests.recognition.strengths import FINE_TUNING, PRETRAINING
from tinyjax.data.augmentation import MEAN, STD, normalize
from tinyjax.recognition import augmentation
from tinyjax.recognition.augmentation import resample

augment_pairs = jax.jit(augmentation.augment_pairs)
augment_views = jax.jit(augmentation.augment_views, static_argnames=("size", "shared_geometry"))

IMAGES = np.random.default_rng(0).integers(0, 256, (8, 16, 24, 3), np.uint8)
PROBABILITIES = (
    *("flip", "erasing", "channel_exchange", "gray", "jitter", "deform", "channel_shuffle"),
    *("rgb_shift", "infrared_gray", "sharpen", "defocus", "jpeg"),
)
UNCHANGED = {
    name: {
        "pad": 0.0, "area": 1.0, "aspect": 0.0, "infrared_contrast": 0.0,
        "infrared_brightness": 0.0, "infrared_noise": 0.0,
    }.get(name, 0.0 if name in PROBABILITIES else value)
    for name, value in {**FINE_TUNING, **PRETRAINING}.items()
}  # fmt: skip


def pairs(seed=0, **strength):
    """Views of `IMAGES` for fine-tuning, as levels 0 to 255, and the images."""
    strength = {name: UNCHANGED[name] for name in FINE_TUNING} | strength
    views = augment_pairs(jax.random.key(seed), IMAGES, strength)
    return 255 * (np.asarray(views) * STD + MEAN), IMAGES.astype(float)


def views(seed=0, size=(16, 24), shared_geometry=True, **strength):
    """The visible and infrared views of `IMAGES`, as levels 0 to 255, and the images."""
    strength = {name: UNCHANGED[name] for name in PRETRAINING} | strength
    views = augment_views(jax.random.key(seed), IMAGES, strength, size, shared_geometry)
    views = 255 * (np.asarray(views) * STD + MEAN)
    return views[:8], views[8:], IMAGES.astype(float)


def test_resampling_equals_scipy_and_is_zero_outside():
    image = IMAGES[0].astype(np.float32)
    rows, columns = np.array([0.0, 2.25, -0.4, 15.5, -0.6]), np.linspace(-2, 25, 7)
    out = resample(jnp.asarray(image), jnp.float32(rows), jnp.float32(columns))
    grid = np.meshgrid(rows, columns, indexing="ij")
    inside = (np.abs(grid[0] - 7.5) <= 8) & (np.abs(grid[1] - 11.5) <= 12)
    for c in range(3):
        expected = ndimage.map_coordinates(image[..., c], grid, order=1, mode="nearest")
        np.testing.assert_allclose(out[..., c], np.where(inside, expected, 0), atol=1e-3)


# ---- fine-tuning


def test_zero_strengths_change_nothing():
    out, images = pairs()
    np.testing.assert_allclose(out, images, atol=1e-3)
    without = augment_pairs(jax.random.key(0), IMAGES, {})
    np.testing.assert_allclose(without, normalize(IMAGES), atol=1e-5)


def test_shifted_and_flipped_images():
    """Each view is a window of the image with a black border; the shifts differ."""
    out, images = pairs(pad=3.0, flip=1.0)
    shifts = set()
    for view, image in zip(out, images, strict=True):
        padded = np.pad(image, ((3, 3), (3, 3), (0, 0)))
        matches = [
            (i, j)
            for i in range(7)
            for j in range(7)
            if np.abs(padded[i : i + 16, j : j + 24][:, ::-1] - view).max() < 1e-2
        ]
        assert len(matches) == 1
        shifts |= {*matches}
    assert len(shifts) >= 6


def test_erased_rectangles():
    fractions = []
    for seed in range(8):
        out, images = pairs(seed, erasing=1.0)
        for view, image in zip(out, images, strict=True):
            erased = np.abs(view - 255 * MEAN).max(-1) < 1e-2
            rows, columns = erased.any(1), erased.any(0)
            np.testing.assert_array_equal(erased, rows[:, None] & columns)
            np.testing.assert_allclose(view[~erased], image[~erased], atol=1e-2)
            assert np.diff(np.flatnonzero(rows)).max(initial=1) == 1
            fractions.append(erased.mean())
    assert 0.01 < min(fractions) < 0.08
    assert 0.3 < max(fractions) <= 0.42


def test_exchanged_channels_of_visible_images():
    out, images = pairs(channel_exchange=1.0)
    np.testing.assert_allclose(out[4:], images[4:], atol=1e-2)
    channels = set()
    for view, image in zip(out[:4], images[:4], strict=True):
        channels |= {c for c in range(3) if np.abs(view - image[..., c : c + 1]).max() < 1e-2}
        assert np.ptp(view, -1).max() < 1e-2
    assert len(channels) > 1


def test_gray_and_jitter_change_visible_images():
    out, images = pairs(gray=1.0)
    np.testing.assert_allclose(out[4:], images[4:], atol=1e-2)
    gray = images[:4] @ [[0.299] * 3, [0.587] * 3, [0.114] * 3]
    np.testing.assert_allclose(out[:4], gray, atol=1e-2)
    ranges = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    np.testing.assert_allclose(pairs(jitter=1.0, **ranges)[0], images, atol=1e-2)
    for name in ranges:
        out, images = pairs(jitter=1.0, **{**ranges, name: 0.4})
        np.testing.assert_allclose(out[4:], images[4:], atol=1e-2)
        assert (np.abs(out[:4] - images[:4]).max((1, 2, 3)) > 3).sum() >= 3


def test_gain_offset_and_noise_of_infrared_images():
    """A least-squares fit gives gain and offset; noise is equal in all channels."""
    out, images = pairs(infrared_contrast=0.5, infrared_brightness=0.1)
    np.testing.assert_allclose(out[:4], images[:4], atol=1e-2)
    fits = [np.polyfit(x.ravel(), y.ravel(), 1) for x, y in zip(images[4:], out[4:], strict=True)]
    for (gain, offset), x, y in zip(fits, images[4:], out[4:], strict=True):
        np.testing.assert_allclose(gain * x + offset, y, atol=1e-2)
        assert np.exp(-0.5) < gain < np.exp(0.5)
        assert abs(gain * 255 * MEAN + offset - 255 * MEAN) < 0.1 * 255
    assert np.ptp([gain for gain, _ in fits]) > 0.1
    out, images = pairs(infrared_noise=0.1)
    difference = (out - images)[4:]
    assert np.ptp(difference, -1).max() < 1e-2
    deviation = difference[..., 0].std((1, 2)) / 255
    assert deviation.max() < 0.12
    assert np.ptp(deviation) > 0.01


# ---- pretraining


def test_unchanged_views_are_the_image():
    visible, infrared, images = views()
    np.testing.assert_allclose(visible, images, atol=1e-2)
    np.testing.assert_allclose(infrared, images, atol=1e-2)


def test_views_share_their_geometry_or_not():
    strength = {"area": 0.3, "aspect": 0.5, "flip": 0.5, "deform": 1.0, "deform_limit": 0.3}
    visible, infrared, _ = views(size=(12, 20), **strength)
    assert visible.shape == (8, 12, 20, 3)
    np.testing.assert_allclose(visible, infrared, atol=1e-2)
    other, infrared, _ = views(size=(12, 20), shared_geometry=False, **strength)
    np.testing.assert_allclose(visible, other, atol=1e-2)
    assert (np.abs(visible - infrared).max((1, 2, 3)) > 10).all()


def test_crops_keep_the_order_of_pixels():
    """A ramp over columns stays monotone, or is mirrored; a deformed grid bends it."""
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[:, None], (8, 16, 64, 3))
    off = {name: UNCHANGED[name] for name in PRETRAINING}
    for deform, flip in ((0.0, 0.0), (1.0, 1.0)):
        strength = {**off, "area": 0.5, "flip": flip, "deform": deform, "deform_limit": 0.4}
        out = augment_views(jax.random.key(1), ramp, strength, (8, 32))
        steps = np.diff(255 * STD * np.asarray(out)[:8, 0, 1:-1, 0], axis=1)
        steps = steps * (1 - 2 * flip)
        assert (steps > 0).all()
        bend = steps.max(1) / steps.min(1)
        assert (bend > 1.1).all() if deform else (bend < 1.01).all()
        span = steps.sum(1) * 32 / 29 / 64  # of the crop's width
        assert (span > 0.45).all()
        assert (span < 1.1).all()


def test_colors_of_the_visible_view():
    """The channels are permuted; offsets are those of whole channels."""
    visible, infrared, images = views(channel_shuffle=1.0)
    np.testing.assert_allclose(infrared, images, atol=1e-2)
    np.testing.assert_allclose(np.sort(visible, -1), np.sort(images, -1), atol=1e-2)
    assert (np.abs(visible - images).max((1, 2, 3)) > 1).any()
    visible, infrared, images = views(rgb_shift=1.0, rgb_shift_limit=0.1)
    np.testing.assert_allclose(infrared, images, atol=1e-2)
    inner = (images > 26) & (images < 229)
    for view, image, mask in zip(visible, images, inner, strict=True):
        offsets = [(view - image)[..., c][mask[..., c]] for c in range(3)]
        assert max(np.ptp(offset) for offset in offsets) < 1e-2
        assert np.ptp([offset[0] for offset in offsets]) > 1
        assert max(abs(offset[0]) for offset in offsets) <= 25.5


@pytest.mark.parametrize("name", ["sharpen", "defocus", "jpeg"])
def test_texture_of_the_infrared_view(name):
    """Texture is that of the luminance: the same change in all channels."""
    size = (96, 128)
    _, unchanged, _ = views(size=size)
    visible, infrared, _ = views(size=size, **{name: 1.0})
    np.testing.assert_allclose(visible, unchanged, atol=1e-2)
    change = infrared - unchanged
    inner = (infrared > 1).all(-1) & (infrared < 254).all(-1)
    assert np.ptp(change, -1)[inner].max() < 1e-2
    assert (np.abs(change).max((1, 2, 3)) > 3).sum() >= 4
    visible, infrared, _ = views(size=size, infrared_gray=1.0, **{name: 1.0})
    np.testing.assert_allclose(visible, unchanged, atol=1e-2)
    assert np.ptp(infrared, -1).max() < 1e-3


# ---- populations


def test_gray_images_of_one_channel():
    """Changes of color do not apply."""
    images = IMAGES[..., :1]
    out = augment_pairs(jax.random.key(0), images, {"gray": 1.0, "channel_exchange": 1.0})
    np.testing.assert_allclose(out, normalize(images), atol=1e-5)


@pytest.mark.parametrize("defaults", [FINE_TUNING, PRETRAINING])
def test_members_with_their_own_strengths(defaults):
    """Two members, vmapped, equal each member alone."""
    unchanged = {name: UNCHANGED[name] for name in defaults}
    strengths = [defaults, {**unchanged, "flip": 1.0, "jitter": 1.0}]

    def augment(key, strength):
        if defaults is FINE_TUNING:
            return augment_pairs(key, IMAGES, strength)
        return augment_views(key, IMAGES, strength, (16, 24), True)

    keys = jax.random.split(jax.random.key(0), 2)
    stack = jax.tree.map(lambda *values: jnp.float32(values), *strengths)
    members = jax.vmap(augment)(keys, stack)
    for key, strength, views in zip(keys, strengths, members, strict=True):
        np.testing.assert_allclose(views, augment(key, strength), atol=1e-4)
