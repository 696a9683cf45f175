"""Random views: pixels and boxes agree, and each strength has its effect."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tinyjax.config import detector
from tinyjax.data import augmentation
from tinyjax.data.augmentation import MEAN, STD, noise, normalize

# Strengths are arguments of the compiled programs, so that tests of equal shapes share one.
augment_detection = partial(jax.jit, static_argnames="size")(augmentation.augment_detection)
augment_classification = partial(jax.jit, static_argnames="size")(
    augmentation.augment_classification
)
mix = jax.jit(augmentation.mix)

UNCHANGED = {
    **detector().augment.to_dict(),
    "flip": 0.0, "scale_low": 1.0, "scale_high": 1.0, "object_crop": 0.0,
    "contrast": 0.0, "brightness": 0.0, "noise": 0.0,
}  # fmt: skip


def test_cropped_views_are_only_flipped():
    images = np.random.default_rng(0).integers(0, 255, (4, 6, 8, 3), np.uint8)
    none = dict.fromkeys(
        ("flip", "area", "aspect", "contrast", "brightness", "noise", "invert"), 0.0
    )
    for flip, expected in ((0.0, images), (1.0, images[:, :, ::-1])):
        strength = {**none, "flip": flip}
        augmented, targets = augment_classification(
            jax.random.key(0), jnp.asarray(images), jnp.eye(4), strength, size=None
        )
        np.testing.assert_allclose(augmented, normalize(expected), atol=1e-5)
        np.testing.assert_array_equal(targets, np.eye(4))


def scene(boxes, size=(60, 80), ignore=()):
    """Dark frames with one bright rectangle per box, inside pixels."""
    images = np.zeros((len(boxes), *size, 1), np.uint8)
    for image, (x1, y1, x2, y2) in zip(images, boxes, strict=True):
        image[y1:y2, x1:x2] = 255
    n = len(boxes)
    real = np.array([[i not in ignore] for i in range(n)])
    return {
        "image": jnp.asarray(images),
        "boxes": jnp.asarray(boxes, jnp.float32)[:, None],
        "labels": jnp.zeros((n, 1), jnp.int32),
        "valid": jnp.asarray(real),
        "ignore": jnp.asarray(~real),
    }


def extent(image):
    """The rectangle's corners with subpixel precision, from the brightness along each axis."""
    light = np.clip(np.asarray(image)[..., 0] * STD + MEAN, 0, 1)
    box = []
    for axis in (0, 1):
        profile = light.max(axis)
        inside = np.flatnonzero(profile > 0.5)
        low, high = inside[0], inside[-1]
        before = profile[low - 1] if low else 0.0
        after = profile[high + 1] if high + 1 < len(profile) else 0.0
        box.append((low - before + (1 - profile[low]), high + 1 + after - (1 - profile[high])))
    (x1, x2), (y1, y2) = box
    return np.array([x1, y1, x2, y2])


def test_zero_strengths_change_nothing():
    batch = scene([(10, 20, 18, 33)] * 8)
    out = augment_detection(jax.random.key(0), batch, UNCHANGED, size=(60, 80))
    np.testing.assert_allclose(out["image"], normalize(batch["image"]), atol=1e-5)
    np.testing.assert_allclose(out["boxes"], batch["boxes"], atol=1e-5)
    assert out["valid"].all()


@pytest.mark.parametrize(
    "strength",
    [
        {"flip": 1.0},
        {"flip_vertical": 1.0},
        {"transpose": 1.0},
        {"scale_low": 0.6, "scale_high": 1.6},
        {"aspect": 0.6},
        {"object_crop": 1.0},
        {"flip": 0.5, "transpose": 0.5, "scale_low": 0.7, "scale_high": 1.5, "aspect": 0.4},
    ],
    ids=lambda s: "+".join(s),
)  # fmt: skip
def test_boxes_follow_the_pixels(strength):
    """The drawn rectangle and its box agree after augmentation."""
    rng = np.random.default_rng(0)
    corner, side = rng.integers(5, 40, (40, 2)), rng.integers(6, 16, (40, 2))
    batch = scene(np.concatenate([corner, corner + side], 1))
    out = augment_detection(jax.random.key(1), batch, {**UNCHANGED, **strength}, size=(56, 56))
    boxes = np.asarray(out["boxes"])[:, 0]
    inside = (boxes.min(1) > 1) & (boxes.max(1) < 55) & np.asarray(out["valid"])[:, 0]
    assert inside.sum() > 10
    for image, box in zip(np.asarray(out["image"])[inside], boxes[inside], strict=True):
        np.testing.assert_allclose(extent(image), box, atol=0.75)
    shift = [extent(i) - b for i, b in zip(out["image"][inside], boxes[inside], strict=True)]
    bias = np.mean(shift, 0)  # resampling widens a rectangle a little, but evenly
    np.testing.assert_allclose(bias[:2] + bias[2:], 0, atol=0.1)


def test_object_crop_contains_an_object():
    batch = scene([(70, 50, 76, 56)] * 50)
    cropped = {**UNCHANGED, "object_crop": 1.0}
    out = augment_detection(jax.random.key(0), batch, cropped, size=(24, 24))
    assert out["valid"].all()
    out = augment_detection(jax.random.key(0), batch, UNCHANGED, size=(24, 24))
    assert not out["valid"].all()


def test_truncated_and_tiny_objects_are_ignored():
    batch = scene([(10, 10, 30, 30)] * 50)
    out = augment_detection(jax.random.key(0), batch, UNCHANGED, size=(24, 24))
    boxes, valid, ignore = (np.asarray(out[k])[:, 0] for k in ("boxes", "valid", "ignore"))
    area = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(1)
    np.testing.assert_array_equal(valid, area >= 0.4 * 400)
    np.testing.assert_array_equal(ignore, (area > 0) & ~valid)
    assert valid.any()
    assert ignore.any()
    tiny = {**UNCHANGED, "scale_low": 0.09, "scale_high": 0.09}
    out = augment_detection(jax.random.key(0), batch, tiny, size=(24, 24))
    assert not out["valid"].any()
    assert out["ignore"].all()


def test_ignored_regions_stay_ignored():
    batch = scene([(10, 20, 18, 33)] * 8, ignore=range(8))
    out = augment_detection(jax.random.key(0), batch, UNCHANGED, size=(60, 80))
    assert out["ignore"].all()
    assert not out["valid"].any()


def test_photometric_augmentation_keeps_boxes():
    batch = scene([(10, 20, 18, 33)] * 8)
    values = {"contrast": 0.5, "brightness": 0.2, "noise": 0.1, "invert": 0.5}
    out = augment_detection(jax.random.key(0), batch, {**UNCHANGED, **values}, size=(60, 80))
    np.testing.assert_allclose(out["boxes"], batch["boxes"], atol=1e-5)
    polarity = [float(i[25, 14, 0] > i[5, 5, 0]) for i in out["image"]]
    assert {0.0, 1.0} == set(polarity)


def test_sample_depends_only_on_its_position_in_the_batch():
    a, b = (scene([(10, 20, 18, 33)] + [box] * 39) for box in ((1, 2, 30, 40), (50, 5, 60, 9)))
    strength = detector().augment.to_dict()
    one, two = (augment_detection(jax.random.key(3), x, strength, size=(56, 56)) for x in (a, b))
    assert (one["image"][1:] != two["image"][1:]).any()
    np.testing.assert_array_equal(one["image"][0], two["image"][0])


def labeled(n=8, size=(12, 16), channels=1):
    rng = np.random.default_rng(0)
    return {
        "image": jnp.asarray(rng.integers(0, 255, (n, *size, channels)), jnp.uint8),
        "labels": jnp.arange(n) % 3,
    }


NO_AUGMENTATION = {
    "flip": 0.0, "area": 1.0, "aspect": 0.0, "contrast": 0.0, "brightness": 0.0, "noise": 0.0,
    "invert": 0.0,
}  # fmt: skip


def views(batch, strength=NO_AUGMENTATION):
    targets = jax.nn.one_hot(batch["labels"], 3)
    key = jax.random.key(0)
    return augment_classification(key, batch["image"], targets, strength, size=(12, 16))


def test_view_of_full_area_is_the_image():
    batch = labeled()
    images, targets = views(batch)
    np.testing.assert_allclose(images, normalize(batch["image"]), atol=1e-5)
    np.testing.assert_array_equal(targets, jax.nn.one_hot(batch["labels"], 3))
    mirrored, _ = views(batch, {**NO_AUGMENTATION, "flip": 1.0})
    np.testing.assert_allclose(mirrored, images[:, :, ::-1], atol=1e-5)


def test_views_keep_their_area_and_aspect():
    """Views of a ramp: its slope gives the side of the region."""
    ramp = np.zeros((400, 64, 64, 2), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.mgrid[:64, :64] * 4
    strength = {**NO_AUGMENTATION, "area": 0.25, "aspect": float(np.log(16 / 9))}
    ones = jnp.ones((400, 1))
    images, _ = augment_classification(
        jax.random.key(1), jnp.asarray(ramp), ones, strength, size=(32, 32)
    )
    gray = np.asarray(images) * STD + MEAN
    height = (gray[:, 24, 16, 0] - gray[:, 8, 16, 0]) * 255 / 4 * 32 / 16 / 64
    width = (gray[:, 16, 24, 1] - gray[:, 16, 8, 1]) * 255 / 4 * 32 / 16 / 64
    area, aspect = height * width, width / height
    assert 0.23 < area.min() < 0.3 < 0.9 < area.max() < 1.02
    assert 0.55 < aspect.min() < 0.65 < 1.5 < aspect.max() < 1.85
    top = gray[:, 0, 16, 0] * 255 / 4 - height  # the first row, in pixels of the image
    assert top.min() < 2
    assert top.max() > 25


def test_mixup_blends_images_and_targets():
    batch = labeled()
    images_in, one_hot = views(batch)
    images, targets = mix(jax.random.key(3), images_in, one_hot, {"mixup": 0.5})
    fraction = float(targets[0, 0])  # its opposite has another label
    assert 0 < fraction < 1
    np.testing.assert_allclose(
        images, fraction * images_in + (1 - fraction) * images_in[::-1], atol=1e-5
    )
    np.testing.assert_allclose(
        targets, fraction * one_hot + (1 - fraction) * one_hot[::-1], atol=1e-6
    )


def test_cutmix_pastes_the_fraction_in_its_target():
    batch = labeled(channels=3)
    images_in, one_hot = views(batch)
    values = set()
    for seed in range(6):
        images, targets = mix(jax.random.key(seed), images_in, one_hot, {"cutmix": 1.0})
        pasted = np.asarray((images == images_in[::-1]).all(-1) & (images != images_in).any(-1))
        assert (pasted == pasted[:1]).all()  # the same window in all images
        rows, columns = np.flatnonzero(pasted[0].any(1)), np.flatnonzero(pasted[0].any(0))
        assert pasted[0].sum() == len(rows) * len(columns)  # a rectangle
        np.testing.assert_allclose(targets[0, 0], 1 - pasted[0].mean(), atol=1e-6)
        values.add(round(float(targets[0, 0]), 3))
    assert len(values) > 3


def test_mixup_and_cutmix_together_apply_one_per_step():
    batch = labeled()
    images_in, one_hot = views(batch)
    both = {"mixup": 1.0, "cutmix": 1.0}
    unblended = []
    for seed in range(12):
        images, targets = mix(jax.random.key(seed), images_in, one_hot, both)
        np.testing.assert_allclose(targets.sum(1), 1, atol=1e-6)
        kept = (images == images_in) | (images == images_in[::-1])
        unblended.append(bool(kept.all()))
    assert {*unblended} == {True, False}


def test_noise_is_nearly_normal():
    """Moments of a sum of four uniform numbers: kurtosis 3 - 6 / 5 / 4."""
    x = np.asarray(noise(jax.random.key(0), (400, 400)), np.float64)
    assert abs(x.mean()) < 0.01
    assert x.std() == pytest.approx(1, abs=0.01)
    assert (x**4).mean() == pytest.approx(2.7, abs=0.05)
    assert 3 < np.abs(x).max() < 3.46
