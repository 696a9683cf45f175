"""What the run folder of a sweep in shards says of them, by heartbeats that processes wrote."""

import json
from types import SimpleNamespace

import pytest

from launch import status
from tinyjax.errors import UserError
from tinyjax.run import heartbeat as heartbeats
from tinyjax.run.heartbeat import Heartbeat
from tinyjax.run.logs import WRITE_INTERVAL

NOW = 1_000_000.0


@pytest.fixture
def clock(monkeypatch):
    """The time that heartbeats are written at."""
    found = SimpleNamespace(now=NOW)
    monkeypatch.setattr(heartbeats.time, "time", lambda: found.now)
    return found


def begun(folder, populations=5, shards=None, done=()):
    """A sweep's folder with so many populations, of which some are done."""
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    plan = {"populations": [{"members": [f"{k}"]} for k in range(populations)]}
    (folder / "plan.json").write_text(json.dumps(plan))
    if shards:
        (folder / "launch.json").write_text(json.dumps({"shards": shards}))
    for k in done:
        (folder / "populations" / str(k)).mkdir(parents=True)
        (folder / "populations" / str(k) / "results.csv").touch()
    return folder


def heartbeat_of(folder, shard, shards, process=0):
    return Heartbeat(folder / "heartbeats" / f"{shard}-of-{shards}.{process}.json")


def test_a_heart_beats_now_and_then(tmp_path, clock):
    heartbeat = heartbeat_of(tmp_path, 0, 1)
    file = tmp_path / "heartbeats" / "0-of-1.0.json"

    def said():
        return json.loads(file.read_text())

    heartbeat.write("compiles")
    assert said()["state"] == "compiles"
    assert said()["time"] == NOW
    heartbeat.write("trains", step=100, steps=500)
    assert (said()["step"], said()["steps"]) == (100, 500)
    assert "seconds_per_step" not in said()
    clock.now += WRITE_INTERVAL - 1
    heartbeat.write("trains", step=150, steps=500)
    assert said()["step"] == 100  # too soon
    clock.now = NOW + 20
    heartbeat.write("trains", step=200, steps=500)
    assert said()["seconds_per_step"] == pytest.approx(0.2)
    clock.now += 500
    heartbeat.write("evaluates")
    heartbeat.write("trains", step=200, steps=500)  # what came between is no step's time
    assert "seconds_per_step" not in said()
    clock.now += 30
    heartbeat.write("trains", step=300, steps=500)
    assert said()["seconds_per_step"] == pytest.approx(0.3)


def test_states_of_shards(tmp_path, clock):
    """0: done; 1: lives, two processes; 2: silent; 3: told to stop; 4: never seen."""
    folder = begun(tmp_path / "run", 6, 5, done=(0, 5))
    clock.now = NOW - 9999
    heartbeat_of(folder, 0, 5).write("trains", step=9, steps=9)
    clock.now = NOW - status.SILENT - 1
    heartbeat_of(folder, 2, 5).write("trains", step=5, steps=9)
    clock.now = NOW - 40
    heartbeat_of(folder, 1, 5).write("trains", step=7, steps=9)
    clock.now = NOW - 2
    heartbeat_of(folder, 3, 5).write("stopped")
    heartbeat_of(folder, 1, 5, process=1).write("compiles")
    found = status.status(folder, NOW)
    assert [(one.state, one.done, one.populations) for one in found] == [
        ("done", 2, 2), ("running", 0, 1), ("stopped", 0, 1), ("stopped", 0, 1), ("missing", 0, 1),
    ]  # fmt: skip
    lines = [line.split() for line in status.table(found, NOW).splitlines()]
    assert lines[2][:8] == ["1", "running", "0", "of", "1", "7", "of", "9"]
    assert lines[2][8:11] == ["40", "s", "ago"]
    assert lines[3][:4] == ["compiles", "2", "s", "ago"]
    assert lines[-1] == ["4", "missing", "0", "of", "1", "never"]


def test_shards_nobody_wrote_down_are_known_by_their_hearts(tmp_path, clock):
    folder = begun(tmp_path / "run", 4)
    assert [one.state for one in status.status(folder, NOW)] == ["missing"]
    heartbeat_of(folder, 0, 1).write("trains", step=1, steps=9)
    clock.now += 60
    heartbeat_of(folder, 1, 2).write("trains", step=1, steps=9)
    assert [one.state for one in status.status(folder, clock.now)] == ["missing", "running"]


def test_more_shards_than_populations_have_nothing_to_do(tmp_path):
    folder = begun(tmp_path / "run", 1, 2, done=(0,))
    assert [one.state for one in status.status(folder, NOW)] == ["done", "done"]


def test_nothing_begun(tmp_path):
    with pytest.raises(UserError, match="no run here"):
        status.status(tmp_path)
