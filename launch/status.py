"""How the shards of a sweep are doing, by what is in its run folder alone."""

import json
import time
from pathlib import Path
from typing import Any, NamedTuple

from tinyjax.errors import UserError
from tinyjax.population import plan, sweep
from tinyjax.run import run_folder

SILENT = 300  # seconds without a heartbeat after which a shard counts as stopped


class Shard(NamedTuple):
    number: int
    state: str  # "done", "running", "stopped" or "missing"
    done: int  # populations
    populations: int
    beats: list[dict[str, Any]]  # of its processes


def status(folder: Path, now: float | None = None) -> list[Shard]:
    """Raises UserError if nothing was begun there."""
    found, now = plan.populations_of_run(folder), time.time() if now is None else now
    done = [run_folder.is_finished(folder / "populations" / str(k)) for k in range(len(found))]
    shards = []
    many = _many(folder)
    for i in range(many):
        files = sorted((folder / "heartbeats").glob(f"{i}-of-{many}.*.json"))
        beats = [json.loads(file.read_text()) for file in files]
        own = done[i::many]
        alive = any(b["state"] != "stopped" and now - b["time"] < SILENT for b in beats)
        state = "running" if alive else "stopped" if beats else "missing"
        shards.append(Shard(i, "done" if all(own) else state, sum(own), len(own), beats))
    return shards


def _many(folder: Path) -> int:
    """Shards that the newest heartbeat knows of, or the launcher was told."""
    if (told := folder / "launch.json").exists():
        return json.loads(told.read_text())["shards"]
    beats = (folder / "heartbeats").glob("*-of-*.json")
    newest = max(beats, key=lambda file: json.loads(file.read_text())["time"], default=None)
    return int(newest.name.partition("-of-")[2].partition(".")[0]) if newest else 1


def table(shards: list[Shard], now: float | None = None) -> str:
    """A line for each process of each shard."""
    now = time.time() if now is None else now
    titles = f"{'shard':>5}  {'':<8}{'populations':>12}{'step':>14}{'s a step':>10}"
    lines = [f"{titles}{'heartbeat':>15}  machine"]
    for own in shards:
        start = f"{own.number:>5}  {own.state:<8}{f'{own.done} of {own.populations}':>12}"
        for beat in own.beats or [{}]:
            step = f"{beat['step']} of {beat['steps']}" if "step" in beat else beat.get("state", "")
            each = f"{beat['seconds_per_step']:.3f}" if "seconds_per_step" in beat else ""
            age = f"{now - beat['time']:.0f} s ago" if beat else "never"
            lines.append(f"{start}{step:>14}{each:>10}{age:>15}  {beat.get('host', '')}")
            start = " " * len(start)
    return "\n".join(lines)


def collect(folder: Path) -> None:
    """Make the tables of a sweep all of whose populations are finished. Raises UserError."""
    task = json.loads((folder / "config.json").read_text())["task"]
    if missing := sweep.collect_tables(folder, len(plan.populations_of_run(folder)), task):
        raise UserError(f"{folder}: populations {', '.join(map(str, missing))} are not finished")
