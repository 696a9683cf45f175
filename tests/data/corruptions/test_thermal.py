"""Thermal corruptions: fixed patterns belong to the camera, and strengths are as documented."""

from itertools import pairwise

import numpy as np
import pytest

from tinyjax.data.corruptions.corrupt import SEVERITIES, THERMAL_CORRUPTIONS, corrupt
from tinyjax.data.corruptions.thermal import FIXED_PATTERNS
from tinyjax.data.synthetic import dataset

SCENE = dataset.load(1, (96, 128)).inputs["image"][0]
OTHER = dataset.load(2, (96, 128)).inputs["image"][1]
FLAT = np.full((96, 128, 1), 128, np.uint8)
DETERMINISTIC = {"polarity", "bit_depth", "equalization"}


def error(corruption, severity, image=SCENE):
    """Root mean square difference from the image, over ten names."""
    outs = np.array([corrupt(image, corruption, severity, f"{i}") for i in range(10)], float)
    return np.sqrt(((outs - image) ** 2).mean())


@pytest.mark.parametrize("corruption", THERMAL_CORRUPTIONS)
def test_difference_from_the_image_grows_with_severity(corruption):
    errors = [error(corruption, severity) for severity in SEVERITIES]
    assert (np.diff(errors) > 0.1 * errors[0]).all(), errors
    assert errors[0] > 0.5


@pytest.mark.parametrize("corruption", THERMAL_CORRUPTIONS)
def test_gray_as_rgb_gives_the_gray_result(corruption):
    for severity in SEVERITIES:
        three = corrupt(SCENE.repeat(3, -1), corruption, severity, "a")
        np.testing.assert_array_equal(
            three, corrupt(SCENE, corruption, severity, "a").repeat(3, -1)
        )


@pytest.mark.parametrize("corruption", THERMAL_CORRUPTIONS)
def test_only_corruptions_of_the_image_depend_on_its_name(corruption):
    """Fixed patterns are the same for all names and differ between image sizes."""
    one, other = (corrupt(FLAT, corruption, 5, name) for name in ("a.png", "b.png"))
    np.testing.assert_array_equal(one, corrupt(FLAT, corruption, 5, "a.png"))
    if corruption in FIXED_PATTERNS or corruption in DETERMINISTIC:
        np.testing.assert_array_equal(one, other)
    elif corruption != "sensor_motion":  # invisible on a uniform image
        assert (one != other).any()
    if corruption in FIXED_PATTERNS:
        assert (one[:80, :100] != corrupt(FLAT[:80, :100], corruption, 5, "a.png")).any()


def test_fixed_patterns_persist_across_severities():
    for corruption in ("fixed_pattern", "stripes"):
        weak, strong = (corrupt(FLAT, corruption, s, "a").astype(float).ravel() for s in (1, 4))
        assert np.corrcoef(weak, strong)[0, 1] > 0.95
    dead = [corrupt(FLAT, "dead_pixels", severity, "a") for severity in SEVERITIES]
    for fewer, more in pairwise(dead):
        np.testing.assert_array_equal(more[fewer != 128], fewer[fewer != 128])


def test_stripes_are_constant_along_columns_and_equal_for_all_images():
    for severity, deviation in zip(SEVERITIES, (5, 10, 16, 26, 40), strict=True):
        offset = corrupt(FLAT, "stripes", severity, "a").astype(int) - 128
        assert np.ptp(offset, axis=0).max() == 0
        assert offset[0].std() == pytest.approx(deviation, rel=0.25)  # of 128 columns
        for image in (SCENE, OTHER):
            out = corrupt(image, "stripes", severity, "a").astype(int)
            inside = (out > 0) & (out < 255)
            np.testing.assert_array_equal((out - image)[inside], (0 * image + offset)[inside])


def test_fixed_pattern_has_the_stated_gain_and_offset():
    """Two levels under one pattern give each pixel's gain and offset; rounding adds 0.3."""
    low, high = (np.full((128, 160, 1), level, np.uint8) for level in (100, 150))
    for severity, (offset, gain) in enumerate(((5, 0.02), (10, 0.04), (16, 0.07)), start=1):
        dark, light = (
            corrupt(x, "fixed_pattern", severity, "a").astype(float) + 0.5 for x in (low, high)
        )
        slope = (light - dark) / 50
        shift = dark - 100 * slope
        assert slope.mean() == pytest.approx(1, abs=0.01)
        assert slope.std() == pytest.approx(np.hypot(gain, 0.41 / 50), rel=0.05)
        noise = 0.29 * np.hypot(3, 2)  # of 3 dark - 2 light
        assert shift.std() == pytest.approx(np.hypot(offset, noise), rel=0.05)


def test_dead_pixels_are_black_or_white_with_the_stated_frequency():
    for severity, fraction in zip(SEVERITIES, (0.001, 0.003, 0.006, 0.012, 0.025), strict=True):
        ground = np.full((256, 320, 1), 128, np.uint8)
        out = corrupt(ground, "dead_pixels", severity, "a")
        assert set(np.unique(out)) == {0, 128, 255}
        # Three quarters single, a fifth of 4 pixels, a twentieth of 9: 2.0 pixels per defect.
        assert (out != 128).mean() == pytest.approx(2.0 * fraction, rel=0.2)
        assert 0.3 < (out == 0).sum() / (out != 128).sum() < 0.7


def test_drift_is_smooth_with_zero_mean():
    for severity, (offset, gain) in zip(
        SEVERITIES, ((6, 0.04), (11, 0.07), (17, 0.1), (25, 0.15), (36, 0.2)), strict=True
    ):
        field = corrupt(FLAT, "drift", severity, "a").astype(float)[..., 0] - 128
        step = max(abs(np.diff(field, axis=0)).max(), abs(np.diff(field, axis=1)).max())
        assert step < 0.25 * field.std() + 1  # half a wave takes 32 pixels or more
        fields = [corrupt(FLAT, "drift", severity, f"{i}").astype(float) - 128 for i in range(30)]
        stated = np.hypot(offset, 128 * gain)
        assert np.sqrt(np.square(fields).mean()) == pytest.approx(stated, rel=0.2)
        assert abs(np.mean(fields)) < 0.05 * stated + 0.6  # truncation to levels adds half a level


def test_gain_multiplies_or_divides_contrast_and_shifts():
    image = (FLAT + np.arange(-8, 8).reshape(1, 16, 1).repeat(8, 1)).astype(np.uint8)
    for severity, (factor, offset) in zip(
        SEVERITIES, ((1.25, 10), (1.5, 20), (1.9, 30), (2.4, 40), (3.0, 50)), strict=True
    ):
        combinations = set()
        for name in range(30):
            out = corrupt(image, "gain", severity, f"{name}").astype(float) + 0.5
            ratio, shift = out.std() / image.std(), out.mean() - image.mean()
            up, right = bool(ratio > 1), bool(shift > 0)
            assert ratio == pytest.approx(factor if up else 1 / factor, rel=0.05)
            assert abs(shift) == pytest.approx(offset, abs=0.6)
            combinations.add((up, right))
        assert len(combinations) == 4


def test_polarity_fades_and_inverts():
    np.testing.assert_array_equal(corrupt(SCENE, "polarity", 5, "a"), 255 - SCENE)
    ends = np.array([0, 255], np.uint8).repeat(64 * 32).reshape(64, 64, 1)
    spans = []
    for severity in SEVERITIES:
        out = corrupt(ends, "polarity", severity, "a").astype(int)
        spans.append(out[-1, 0, 0] - out[0, 0, 0])
    assert spans == [153, 51, -51, -153, -255]


def test_motion_trail_has_the_stated_length():
    """The image of a bright point: remaining brightness and shift of the center of mass."""
    point = np.zeros((129, 129, 1), np.uint8)
    point[64, 64] = 255
    block = 255 * np.ones((129, 129, 1), np.uint8)
    for severity, length in zip(SEVERITIES, (1.0, 1.8, 3.0, 5.0, 8.0), strict=True):
        np.testing.assert_array_equal(corrupt(block, "sensor_motion", severity, "a"), block)
        peak = [corrupt(point, "sensor_motion", severity, f"{i}")[64, 64, 0] for i in range(8)]
        assert np.ptp(peak) <= 1  # independent of the direction
        assert max(peak) / 255 == pytest.approx(1 - np.exp(-1 / length), abs=0.02)
    out = corrupt(point, "sensor_motion", 5, "a")[..., 0].astype(float)
    y, x = (np.indices(out.shape) - 64).reshape(2, -1) @ out.ravel() / out.sum()
    # Slightly below sum(i w) / sum(w) = 7.5, since levels in the tail are truncated.
    assert 6 < np.hypot(y, x) < 7.6
    turns = [corrupt(point, "sensor_motion", 5, f"{i}") for i in range(20)]
    sides = {(int((t[:64] > 0).any()), int((t[:, :64] > 0).any())) for t in turns}
    assert len(sides) == 4


def test_bit_depth_levels_cover_the_full_range():
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    for severity, bits in zip(SEVERITIES, (6, 5, 4, 3, 2), strict=True):
        out = corrupt(ramp, "bit_depth", severity, "a")
        levels, count = np.unique(out, return_counts=True)
        assert len(levels) == 2**bits
        assert (count == 256 / 2**bits).all()
        assert (levels[0], levels[-1]) == (0, 255)
        assert (np.diff(out.ravel().astype(int)) >= 0).all()


def test_equalization_approaches_even_counts_and_keeps_order():
    image = (np.arange(256) ** 2 / 255).astype(np.uint8).reshape(16, 16, 1).repeat(8, 0)
    order = np.argsort(image.ravel(), kind="stable")
    unevenness = []
    for severity in SEVERITIES:
        out = corrupt(image, "equalization", severity, "a").ravel()
        assert (np.diff(out[order].astype(int)) >= 0).all()
        shares = np.histogram(out, 8, (0, 256))[0] / out.size
        unevenness.append(abs(shares - 1 / 8).max())
    assert (np.diff(unevenness) < 0).all()
    assert unevenness[-1] < 0.02
