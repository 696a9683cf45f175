"""The progress of shards, read from heartbeats in the run folder."""

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
    """The clock of the heartbeats, which a test sets."""
    time = SimpleNamespace(now=NOW)
    monkeypatch.setattr(heartbeats.time, "time", lambda: time.now)
    return time


def make_sweep_folder(folder, populations=5, shards=None, done=()):
    """Make the folder of a sweep with `populations`, of which those in `done` are finished."""
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


def test_heartbeat_is_written_at_intervals(tmp_path, clock):
    heartbeat = heartbeat_of(tmp_path, 0, 1)
    file = tmp_path / "heartbeats" / "0-of-1.0.json"

    def recorded():
        return json.loads(file.read_text())

    heartbeat.write("compiles")
    assert recorded()["state"] == "compiles"
    assert recorded()["time"] == NOW
    heartbeat.write("trains", step=100, steps=500)
    assert (recorded()["step"], recorded()["steps"]) == (100, 500)
    assert "seconds_per_step" not in recorded()
    clock.now += WRITE_INTERVAL - 1
    heartbeat.write("trains", step=150, steps=500)
    assert recorded()["step"] == 100  # too soon
    clock.now = NOW + 20
    heartbeat.write("trains", step=200, steps=500)
    assert recorded()["seconds_per_step"] == pytest.approx(0.2)
    clock.now += 500
    heartbeat.write("evaluates")
    heartbeat.write("trains", step=200, steps=500)  # no rate: the time includes the evaluation
    assert "seconds_per_step" not in recorded()
    clock.now += 30
    heartbeat.write("trains", step=300, steps=500)
    assert recorded()["seconds_per_step"] == pytest.approx(0.3)


def test_shard_states(tmp_path, clock):
    """Shard 0: done; 1: running, two processes; 2: timed out; 3: stopped; 4: never started."""
    folder = make_sweep_folder(tmp_path / "run", 6, 5, done=(0, 5))
    clock.now = NOW - 9999
    heartbeat_of(folder, 0, 5).write("trains", step=9, steps=9)
    clock.now = NOW - status.HEARTBEAT_TIMEOUT - 1
    heartbeat_of(folder, 2, 5).write("trains", step=5, steps=9)
    clock.now = NOW - 40
    heartbeat_of(folder, 1, 5).write("trains", step=7, steps=9)
    clock.now = NOW - 2
    heartbeat_of(folder, 3, 5).write("stopped")
    heartbeat_of(folder, 1, 5, process=1).write("compiles")
    shards = status.shard_states(folder, NOW)
    assert [(shard.state, shard.done, shard.populations) for shard in shards] == [
        ("done", 2, 2), ("running", 0, 1), ("stopped", 0, 1), ("stopped", 0, 1), ("missing", 0, 1),
    ]  # fmt: skip
    lines = [line.split() for line in status.status_table(shards, NOW).splitlines()]
    assert lines[2][:8] == ["1", "running", "0", "of", "1", "7", "of", "9"]
    assert lines[2][8:11] == ["40", "s", "ago"]
    assert lines[3][:4] == ["compiles", "2", "s", "ago"]
    assert lines[0] == ["shard", "state", "populations", "step", "s/step", "heartbeat", "machine"]
    assert lines[-1] == ["4", "missing", "0", "of", "1", "never"]


def test_number_of_shards_is_that_of_the_last_heartbeat(tmp_path, clock):
    folder = make_sweep_folder(tmp_path / "run", 4)
    assert [shard.state for shard in status.shard_states(folder, NOW)] == ["missing"]
    heartbeat_of(folder, 0, 1).write("trains", step=1, steps=9)
    clock.now += 60
    heartbeat_of(folder, 1, 2).write("trains", step=1, steps=9)
    assert [shard.state for shard in status.shard_states(folder, clock.now)] == [
        "missing",
        "running",
    ]


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"state": "trains"}'])
def test_damaged_heartbeat_is_as_none(tmp_path, clock, text):
    folder = make_sweep_folder(tmp_path / "run", 4)
    heartbeat_of(folder, 0, 2).write("trains")
    file = folder / "heartbeats" / "1-of-2.0.json"
    file.write_text(text)
    states = [shard.state for shard in status.shard_states(folder, NOW)]
    assert states == ["running", "missing"]
    assert heartbeats.describe(file) == "no heartbeat yet"


@pytest.mark.parametrize("name", ["plan.json", "launch.json"])
def test_damaged_record_is_an_error(tmp_path, name):
    folder = make_sweep_folder(tmp_path / "run", 4)
    (folder / name).write_text("")
    with pytest.raises(UserError, match=rf"{name}: this file is damaged \(Expecting value"):
        status.shard_states(folder)


def test_shards_without_populations_are_done(tmp_path):
    folder = make_sweep_folder(tmp_path / "run", 1, 2, done=(0,))
    assert [shard.state for shard in status.shard_states(folder, NOW)] == ["done", "done"]


def test_folder_without_a_run_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no run here"):
        status.shard_states(tmp_path)


def test_finished_single_run_is_done(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    heartbeat_of(tmp_path, 0, 1).write("finished")
    assert [shard.state for shard in status.shard_states(tmp_path)] == ["running"]
    (tmp_path / "results.csv").touch()
    assert [(s.state, s.done) for s in status.shard_states(tmp_path)] == [("done", 1)]
