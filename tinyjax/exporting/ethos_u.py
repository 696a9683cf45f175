"""What an int8 LiteRT file costs on an Arm Ethos-U55 with 128 multiply-adds per cycle.

Arm's compiler Vela translates the file for the processor and estimates its time. It is optional:
pip install 'tinyjax[edge]'.
"""

import csv
import subprocess
import sys
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tinyjax.exporting import flatbuffer
from tinyjax.run.logs import log

KEY = "ethos_u55_128"  # in a record
ACCELERATOR = "ethos-u55-128"
# Of Vela's file Arm/vela.ini: 500 MHz, SRAM with 4 GB/s, flash with 0.5 GB/s; activations in SRAM,
# weights in flash.
SYSTEM, MEMORY = "Ethos_U55_High_End_Embedded", "Shared_Sram"


def estimate(file: bytes) -> dict[str, Any]:
    """{KEY: the estimates of one call, as JSON types}, or {} and a log line if there are none.

    - cycles, milliseconds: of the processor, at its clock in SYSTEM.
    - sram_bytes, flash_bytes: activations with scratch memory; weights and commands.
    - cpu_operators: operators that the processor lacks.

    file: an int8 LiteRT file.
    """
    if find_spec("ethosu") is None:
        log.info("no estimates for Ethos-U55: they need Vela, pip install 'tinyjax[edge]'")
        return {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "network.tflite").write_bytes(file)
        command = [sys.executable, "-m", "ethosu.vela", "network.tflite", "--output-dir", "."]
        command += ["--accelerator-config", ACCELERATOR, "--config", "Arm/vela.ini"]
        command += ["--system-config", SYSTEM, "--memory-mode", MEMORY]
        # In its own process, because it prints and may end the process.
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            lines = [*filter(None, (done.stderr or done.stdout).splitlines())]
            log.warning(f"no estimates for Ethos-U55: Vela failed: {lines[-1] if lines else ''}")
            return {}
        summary = (folder / f"network_summary_{SYSTEM}.csv").read_text(encoding="utf-8")
        compiled = flatbuffer.read((folder / "network_vela.tflite").read_bytes())
    # What the processor computes is a single custom operator.
    on_cpu = [name for name in flatbuffer.operator_names(compiled) if name != "CUSTOM"]
    settings = {"vela": version("ethos-u-vela"), "system": SYSTEM, "memory": MEMORY}
    return {KEY: {**parse_summary(summary), "cpu_operators": len(on_cpu), **settings}}


def parse_summary(text: str) -> dict[str, Any]:
    """The estimates in Vela's summary, CSV text with one row."""
    (row,) = csv.DictReader(text.splitlines())
    return {
        "cycles": int(row["cycles_total"]),
        "milliseconds": round(1000 * float(row["inference_time"]), 4),
        "sram_bytes": _bytes(row["sram_memory_used"]),
        "flash_bytes": _bytes(row["off_chip_flash_memory_used"]),
    }


def _bytes(kibibytes: str) -> int:
    return round(1024 * float(kibibytes))
