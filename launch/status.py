"""The progress of a sweep's shards, read from its run folder."""

import time
from pathlib import Path
from typing import Any, NamedTuple

from tinyjax.errors import UserError
from tinyjax.population import plan
from tinyjax.run import heartbeat, run_folder
from tinyjax.run.files import read_json
from tinyjax.run.text import text_table
from tinyjax.tasks import get_task
from tinyjax.training import sweep

HEARTBEAT_TIMEOUT = 300  # seconds without a heartbeat after which a shard counts as stopped


class Shard(NamedTuple):
    """The progress of a shard."""

    number: int
    state: str  # "done", "running", "stopped" or "missing"
    done: int  # finished populations
    populations: int
    heartbeats: list[dict[str, Any]]  # the last one of each process


def shard_states(folder: Path, now: float | None = None) -> list[Shard]:
    """Return the progress of each shard. Raises UserError if no sweep was started in the folder."""
    count, now = len(plan.populations_of_run(folder)), time.time() if now is None else now
    finished = run_folder.is_finished(folder)  # the results of a single run are only here
    done = [
        finished or run_folder.is_finished(folder / "populations" / str(k)) for k in range(count)
    ]
    shards = []
    num_shards = _num_shards(folder)
    for i in range(num_shards):
        files = sorted((folder / "heartbeats").glob(f"{i}-of-{num_shards}.*.json"))
        heartbeats = [record for file in files if (record := heartbeat.read(file))]
        shard_done = done[i::num_shards]
        alive = any(
            record["state"] != "stopped" and now - record["time"] < HEARTBEAT_TIMEOUT
            for record in heartbeats
        )
        state = "running" if alive else "stopped" if heartbeats else "missing"
        if all(shard_done):
            state = "done"
        shards.append(Shard(i, state, sum(shard_done), len(shard_done), heartbeats))
    return shards


def _num_shards(folder: Path) -> int:
    """Return the number of shards in launch.json, or else in the name of the newest heartbeat."""
    if (launch_file := folder / "launch.json").exists():
        return read_json(launch_file)["shards"]
    files = (folder / "heartbeats").glob("*-of-*.json")
    times = {file: record["time"] for file in files if (record := heartbeat.read(file))}
    newest = max(times, key=lambda file: times[file], default=None)
    return int(newest.name.partition("-of-")[2].partition(".")[0]) if newest else 1


def status_table(shards: list[Shard], now: float | None = None) -> str:
    """Return the progress as text, a line per process of each shard."""
    now = time.time() if now is None else now
    rows: list[dict[str, Any]] = []
    for shard in shards:
        row: dict[str, Any] = {
            "shard": shard.number,
            "state": shard.state,
            "populations": f"{shard.done} of {shard.populations}",
        }
        for record in shard.heartbeats or [{}]:
            step = record.get("state")
            if "step" in record:
                step = f"{record['step']} of {record['steps']}"
            age = f"{now - record['time']:.0f} s ago" if record else "never"
            row |= {"step": step, "s/step": record.get("seconds_per_step")}
            rows.append(row | {"heartbeat": age, "machine": record.get("host")})
            row = {}  # blank for further processes of the shard
    columns = ("shard", "state", "populations", "step", "s/step", "heartbeat", "machine")
    return text_table(rows, columns)


def collect(folder: Path) -> None:
    """Write the tables of a sweep. Raises UserError unless all its populations are finished."""
    config = read_json(folder / "config.json")
    labels = get_task(config["task"]).metrics(config)
    if missing := sweep.collect_tables(folder, len(plan.populations_of_run(folder)), labels):
        raise UserError(f"{folder}: populations {', '.join(map(str, missing))} are not finished")
