"""Ranges that are fitted to the values of a tensor. Floors: test_calibration.py."""

import numpy as np
import pytest

from tests.exporting.test_calibration import convert
from tinyjax.exporting import activations, ranges

RNG = np.random.default_rng(0)


def fit(values):
    """The fitted range of what `values` are doubled to, and the measured one."""
    file = convert(lambda x: x * 2.0, values.shape[1:])
    measured = activations.measure(file, [values])
    (name,) = {*measured} - {"image"}
    return ranges.fit_ranges(file, measured, [values])[name], measured[name]


def rounding_errors(values, span):
    step = (span[1] - span[0]) / 255
    integers = np.round((values - span[0]) / step).clip(0, 255)
    return np.abs(integers * step + span[0] - values)


def test_range_of_a_tensor_with_outliers():
    """Two of 1.6 million normal values are 30 standard deviations large: it pays to clip them, but
    not to a third. The least error of all fractions, by rounding all values.
    """
    values = RNG.normal(size=(1, 640, 640, 4)).astype(np.float32)
    values[0, 0, 0, :2] = 30, -30
    fitted, measured = fit(values)
    assert measured == (-60, 60)
    spans = [(-60 * f, 60 * f) for f in ranges.FRACTIONS]
    errors = [(rounding_errors(2 * values, span) ** 3).mean() for span in spans]
    assert fitted == pytest.approx(spans[np.argmin(errors)])
    assert 0 < np.argmin(errors) < len(spans) - 1


def test_range_of_evenly_spread_values_stays():
    values = np.linspace(-1, 1, 1024, dtype=np.float32).reshape(1, 16, 16, 4)
    fitted, measured = fit(values)
    assert fitted == measured == (-2, 2)


def test_a_floor_is_kept():
    """Values below it are no error, so that they do not widen the range again."""
    values = RNG.normal(size=(1, 32, 32, 4)).astype(np.float32)
    file = convert(lambda x: x * 2.0, values.shape[1:])
    (name,) = {*activations.measure(file, [values])} - {"image"}
    spans = {"image": (0.0, 255.0), name: (-3.0, 8.0)}
    low, high = ranges.fit_ranges(file, spans, [values])[name]
    assert low == pytest.approx(-3.0)
    assert 0 < high <= 8
