"""TensorBoard's event files, read back; an extra that is not there."""

import struct
import sys
from contextlib import ExitStack

import pytest
from tensorboardX.proto.event_pb2 import Event

from tinyjax.defaults import detector
from tinyjax.errors import UserError
from tinyjax.trackers import trackers


def scalars(file):
    """(step, tag, value) of an event file: TFRecords, each of length, crc, data, crc."""
    data, out = file.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        event = Event.FromString(data[12 : 12 + length])
        out += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
        data = data[16 + length :]
    return out


def test_every_metric_is_a_scalar_of_tensorboard(tmp_path):
    config = detector()
    config.log.tensorboard = True
    with ExitStack() as stack:
        (track,) = trackers(config, tmp_path, 0, stack)
        track(50, "train", {"loss": 1.5, "lr": 0.25})
        track(100, "val", {"AP50": 0.5, "AP/person": float("nan")})
    (file,) = (tmp_path / "tensorboard").iterdir()
    found = scalars(file)
    assert found[:3] == [(50, "train/loss", 1.5), (50, "train/lr", 0.25), (100, "val/AP50", 0.5)]
    assert found[3][:2] == (100, "val/AP/person")
    assert found[3][2] != found[3][2]


def test_nothing_is_tracked_unless_asked_for(tmp_path):
    assert trackers(detector(), tmp_path, 0, ExitStack()) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("field", "value", "module"), [("tensorboard", True, "tensorboardX"), ("wandb", "w", "wandb")]
)
def test_an_extra_that_is_not_installed_is_named(field, value, module, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not there
    config = detector()
    config.log[field] = value
    with pytest.raises(UserError, match=rf"{module} is not installed; .*tinyjax\[{field}\]"):
        trackers(config, tmp_path, 0, ExitStack())
