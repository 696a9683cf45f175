"""Estimates of Arm's compiler Vela, from a stored summary and from the compiler."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from jax import lax

from tinyjax.exporting import ethos_u, litert
from tinyjax.exporting.functions import ExportedFunction

needs_vela = pytest.mark.skipif(
    find_spec("ethosu") is None, reason="no Vela: pip install 'tinyjax[edge]'"
)


def test_summary_of_vela():
    """Of Vela 5.2.0 for a MobileNetV3 S-3 detector at 160 x 128; sizes are in KiB there."""
    text = (Path(__file__).parent / "vela_summary.csv").read_text()
    assert ethos_u.parse_summary(text) == {
        "cycles": 895808,
        "milliseconds": 1.7916,
        "sram_bytes": 348384,
        "flash_bytes": 173968,
    }


def test_without_vela_a_line_says_how_to_get_it(monkeypatch, caplog):
    monkeypatch.setattr(ethos_u, "find_spec", lambda name: None)
    caplog.set_level("INFO")
    assert ethos_u.estimate(b"") == {}
    assert "pip install 'tinyjax[edge]'" in caplog.text


@needs_vela
@pytest.mark.slow
def test_estimates_of_a_convolution():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 8, 16)).astype(np.float32)

    def call(image):
        dimensions = ("NHWC", "HWIO", "NHWC")
        return {
            "y": lax.conv_general_dilated(
                image, kernel, (1, 1), "VALID", dimension_numbers=dimensions
            )
        }

    file = litert.convert(ExportedFunction(call, (34, 34, 8), "float32", {}))
    int8 = litert.quantize(file, "int8", {"y": (-9e3, 9e3)})
    row = ethos_u.estimate(int8)[ethos_u.KEY]
    assert row["cpu_operators"] == 0
    # At least the multiply-adds, the weights, and the output in int8.
    assert row["cycles"] >= 32 * 32 * 16 * 72 / 128
    assert row["sram_bytes"] >= 32 * 32 * 16
    assert 72 * 16 / 2 <= row["flash_bytes"] <= 72 * 16 * 4
    assert row["milliseconds"] == pytest.approx(row["cycles"] / 500e6 * 1000, abs=1e-4)


@needs_vela
@pytest.mark.slow
def test_a_file_that_vela_rejects_has_no_estimates(caplog):
    assert ethos_u.estimate(b"not a network") == {}
    assert "Vela failed: " in caplog.text
