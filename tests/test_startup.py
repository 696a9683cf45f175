"""What is refused before a run starts because it would not fit."""

import numpy as np
import pytest

from tinyjax import errors, startup


def test_a_set_that_does_not_fit_says_what_it_needs(monkeypatch):
    images = np.zeros((512, 64, 64, 1), np.uint8)  # 2 MiB
    monkeypatch.setattr(startup, "memory", lambda: 2**21)
    startup.refuse_large_set(images)
    monkeypatch.setattr(startup, "memory", lambda: 2**20)
    message = r"data\.train: 512 images need 0\.00 GiB on the device, .*data\.common\.size"
    with pytest.raises(errors.UserError, match=message):
        startup.refuse_large_set(images)
