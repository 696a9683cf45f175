"""Heartbeats: the state of a running process, for `python -m launch status` and for messages."""

import json
import os
import platform
import time
from pathlib import Path
from typing import Any

from tinyjax.run.files import atomic
from tinyjax.run.logs import WRITE_INTERVAL, log_failure

FIELDS = {"state", "time", "host", "process"}  # of every record


class Heartbeat:
    """The file in which a process regularly records its state and its machine."""

    def __init__(self, file: Path):
        self._file = file
        self._state, self._written = "", 0.0
        self._step: tuple[float, int] | None = None  # time and number of the last recorded step

    def write(self, state: str, **values: Any) -> None:
        """Record `state` and `values`; with `step`, also seconds per step since the last record.

        The same state is written at most every `WRITE_INTERVAL` seconds.
        """
        now, step = time.time(), values.get("step")
        if state == self._state and now - self._written < WRITE_INTERVAL:
            return
        self._state, self._written = state, now
        record = {
            "state": state,
            "time": now,
            "host": platform.node(),
            "process": os.getpid(),
            **values,
        }
        if step is not None:
            if self._step and step > self._step[1]:
                record["seconds_per_step"] = (now - self._step[0]) / (step - self._step[1])
            self._step = now, step
        with log_failure(self._file), atomic(self._file) as path:
            path.write_text(json.dumps(record), encoding="utf-8")


def describe(file: Path) -> str:
    """The process of a heartbeat, as "host a, pid 12, heartbeat 3 s ago"."""
    if not (record := read(file)):  # it has just started
        return "no heartbeat yet"
    age = max(0, time.time() - record["time"])
    return f"host {record['host']}, pid {record['process']}, heartbeat {age:.0f} s ago"


def read(file: Path) -> dict[str, Any] | None:
    """The record of a heartbeat, or None if there is none or the file is damaged."""
    try:
        record = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and record.keys() >= FIELDS else None
