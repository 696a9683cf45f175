"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

# Before any test imports jax. The promises about results are made for CPU.
os.environ.setdefault("JAX_PLATFORMS", "cpu")


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of public data sets, $TINYJAX_DATA.

    Where it is absent the test is skipped; with TINYJAX_REQUIRE_DATA=1 (set by .ci/run) it fails,
    so that continuous integration cannot pass by finding nothing to test.
    """
    root = Path(os.environ.get("TINYJAX_DATA", "../shared/data"))
    if root.is_dir():
        return root
    message = f"TINYJAX_DATA: no folder {root.absolute()}"
    if os.environ.get("TINYJAX_REQUIRE_DATA") == "1":
        pytest.fail(message)
    pytest.skip(message)
