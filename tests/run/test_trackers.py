"""TensorBoard's event files, and extras that are not installed."""

import struct
import sys
from contextlib import ExitStack

import pytest
from tensorboardX.proto.event_pb2 import Event

from tinyjax.config import detector
from tinyjax.errors import UserError
from tinyjax.run.trackers import open_trackers


def read(file):
    """Yield the events of a file of TFRecords: length, crc, data, crc each."""
    data = file.read_bytes()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        yield Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]


def scalars(file):
    """Return (step, tag, value) of each scalar of an event file."""
    return [(e.step, v.tag, v.simple_value) for e in read(file) for v in e.summary.value]


def test_metrics_become_tensorboard_scalars(tmp_path):
    config = detector()
    config.log.tensorboard = True
    with ExitStack() as stack:
        (track,) = open_trackers(config, tmp_path, 0, stack)
        track(50, "train", {"loss": 1.5, "lr": 0.25})
        track(100, "val", {"AP50": 0.5, "AP/person": float("nan")})
    (file,) = (tmp_path / "tensorboard").iterdir()
    values = scalars(file)
    assert values[:3] == [(50, "train/loss", 1.5), (50, "train/lr", 0.25), (100, "val/AP50", 0.5)]
    assert values[3][:2] == (100, "val/AP/person")
    assert values[3][2] != values[3][2]  # NaN


def test_resumed_run_drops_events_after_its_checkpoint(tmp_path):
    config = detector()
    config.log.tensorboard = True
    for step, losses in ((0, {50: 1.5, 100: 1.25, 150: 1.0}), (100, {150: 0.75})):
        with ExitStack() as stack:
            (track,) = open_trackers(config, tmp_path, step, stack)
            for at, loss in losses.items():
                track(at, "train", {"loss": loss})
    files = (tmp_path / "tensorboard").iterdir()
    events = [e for file in files for e in read(file) if e.HasField("session_log")]
    assert max(e.step for e in events) == 101  # TensorBoard drops earlier events from this step on


def test_trackers_are_off_by_default(tmp_path):
    assert open_trackers(detector(), tmp_path, 0, ExitStack()) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("field", "value", "module"), [("tensorboard", True, "tensorboardX"), ("wandb", "w", "wandb")]
)
def test_missing_extra_is_an_error(field, value, module, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    config = detector()
    config.log[field] = value
    with pytest.raises(UserError, match=rf"{module} is not installed; .*tinyjax\[{field}\]"):
        open_trackers(config, tmp_path, 0, ExitStack())
