"""The benchmarks: candidates are timed in turn, each in a process of its own."""

import argparse
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import coverage, detectors, device_steps, devices, sweep, timing, torch_calls, tpu
from tinyjax import config as configs
from tinyjax import preflight
from tinyjax.population.options import select_members


def build_logging_call(file, name):
    def call():
        with open(file, "a", encoding="utf-8") as lines:
            lines.write(f"{name} {os.getpid()}\n")

    return call


def build_without_torch():
    raise ImportError("torch is not installed: pip install torch")


def build_and_crash():
    os._exit(3)


@pytest.mark.slow
def test_candidates_are_timed_in_turn_and_unavailable_ones_reported(tmp_path, capsys):
    calls = tmp_path / "calls"
    candidates = {
        "a": (build_logging_call, (str(calls), "a")),
        "b": (build_logging_call, (str(calls), "b")),
        "torch": (build_without_torch, ()),
        "crashed": (build_and_crash, ()),
    }
    seconds, build_seconds, unavailable = timing.compare(candidates, rounds=4)
    assert {name: len(times) for name, times in seconds.items()} == {"a": 4, "b": 4}
    assert list(build_seconds) == ["a", "b"]
    assert unavailable == [
        "torch: torch is not installed: pip install torch",
        "crashed: its process ended during the build; its output is above",
    ]
    names, processes = zip(*(line.split() for line in calls.read_text().splitlines()), strict=True)
    # The first of two calls in a turn is not timed.
    assert "".join(names) == "aabb" * (timing.WARMUP_ROUNDS + 4)
    assert len({*processes, str(os.getpid())}) == 3
    timing.print_comparison("net", candidates, rounds=4)
    assert "pip install torch" in capsys.readouterr().out


def test_ratio_is_the_median_over_rounds():
    assert timing.median_ratio([1.0, 2.0, 30.0], [2.0, 4.0, 3.0]) == 0.5
    assert timing.milliseconds([0.001, 0.002, 0.003]) == "2.0 ± 1.0"


def test_every_detector_and_neck_is_compared_with_the_default(monkeypatch, capsys):
    compared = []

    def compare(candidates, rounds):
        compared.append(candidates)
        seconds = {key: [0.1 if key == detectors.DEFAULT else 0.25] * rounds for key in candidates}
        return timing.Comparison(seconds, dict.fromkeys(candidates, 1.0), [])

    monkeypatch.setattr(timing, "compare", compare)
    detectors.main(["--detector", "point", "retinanet", "--neck", "pan", "fpn", "--rounds", "3"])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[3:]]
    assert [row[:2] for row in rows] == [
        [detector, neck] for detector in ("point", "retinanet") for neck in ("pan", "fpn")
    ]
    assert rows[0][2:] == ["100.0", "±", "0.0", "1.00"] * 2
    assert rows[3][2:] == ["250.0", "±", "0.0", "2.50"] * 2
    for candidates in compared:
        for (detector, neck), (_, (spec,)) in candidates.items():
            model = configs.load(spec).model
            assert (model.detector, model.neck) == (detector, neck)


def test_sweep_is_compared_with_the_same_networks():
    config = sweep.get_config("steps=7")
    assert (config.schedule.steps, config.batch) == (7, sweep.BATCH)
    members = select_members(sweep.__file__, config)
    (command,) = sweep.commands("sweep", 7, "folder")
    assert command[2:] == ["--config", f"{sweep.__file__}:steps=7", "--workdir", "folder/run"]
    selected = []
    for command in sweep.commands("processes", 7, "folder"):
        only = [command[i + 1] for i, word in enumerate(command) if word == "--sweep.only"]
        selected += select_members(sweep.__file__, config, only)
    assert sorted(selected) == sorted(members)
    ((_, _, *runs),) = sweep.commands("in turn", 7, "folder")
    assert len({run.split()[3] for run in runs}) == len(members) == 24


def test_missing_torch_is_reported_with_what_to_install(monkeypatch):
    monkeypatch.setattr(torch_calls, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="torch is not installed: pip install torch torchvision"):
        torch_calls.torch_network("mobilenetv3/s-3", 10)


def test_coverage_simulations_run():
    covered, percentile_covered = coverage.interval_coverage(3, 0.15, True, 20)
    assert 0.5 < covered <= 1
    assert 0 < percentile_covered <= 1
    found, _ = coverage.threshold_rates(coverage.broken_line(12), 4)
    assert 0 < found <= 1


@pytest.mark.slow
def test_costs_on_devices_grow_with_the_frame():
    small, large = (devices.measure("mobilenetv3/s-5", size) for size in ("64x64", "128x64"))
    assert small["parameters"] == large["parameters"] == 40223
    for name in ("multiply-adds M", "arena KB"):
        assert large[name] / small[name] == pytest.approx(2, rel=0.05)
    # An int8 weight for each parameter, and biases.
    assert 40 < small["weights KB"] < 50


def run_device_benchmark(*options):
    script = Path(device_steps.__file__).with_name("device.sh")
    return subprocess.run(
        ["bash", script, *options], env=os.environ | {"PYTHON": sys.executable}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


@pytest.mark.slow
def test_device_benchmark_on_a_cpu():
    process = run_device_benchmark("--dry-run", "--budget", "3600")
    assert process.returncode == 0, process.stdout
    _, _, header, *lines = process.stdout.splitlines()[-len(device_steps.DRY_RUN.rows) * 2 - 3 :]
    assert header == device_steps.HEADER
    rows = [(net, *row) for row in device_steps.DRY_RUN.rows for net in device_steps.NETS]
    for (net, members, method), line in zip(rows, lines, strict=True):
        title, values = line[:45], line[45:].replace("±", "").split()
        assert title.split() == [net, str(members), *method.split()]
        if values[0] == "skipped:":  # torch is missing, or has no GPU for a graph
            assert method in device_steps.TORCH
            continue
        median, spread, floor, ratio, gigabytes, build_seconds = map(float, values)
        assert all(0 < x < math.inf for x in (median, floor, ratio, gigabytes, build_seconds))
        assert 0 <= spread < math.inf


def test_device_benchmark_needs_an_accelerator():
    process = run_device_benchmark()
    assert process.returncode == 2
    assert "jax sees only a CPU; on a GPU: pip install 'jax[cuda12]==" in process.stdout


def test_device_benchmark_ends_with_its_budget():
    process = run_device_benchmark("--dry-run", "--budget", "1")
    assert process.returncode == 0
    assert process.stdout.splitlines()[-1].endswith("ended: the budget of 1 s is spent")


def test_rows_that_exceed_the_budget_are_skipped():
    row = device_steps.Row("net", 64, "vmap")
    spent = {
        row._replace(members=8): 20.0,
        row._replace(members=8, net="other"): 30.0,
        row._replace(members=8, method="wide:8"): 70.0,
    }
    assert device_steps.reason_to_skip(row, {}, 1.0) is None  # nothing is known yet
    assert device_steps.reason_to_skip(row, spent, 31.0) is None
    reason = device_steps.reason_to_skip(row, spent, 29.0)
    assert reason == "it would take about 30 s, and 29 s are left"
    # A method without a row before it may take as long as any.
    assert device_steps.reason_to_skip(row._replace(method="map"), spent, 69.0)
    assert device_steps.reason_to_skip(row, {}, -1.0) == "it would take about 0 s, and 0 s are left"


def test_floor_of_a_loop_is_that_of_its_body():
    rows = [device_steps.Row("net", *row) for row in device_steps.FULL.rows]
    for row in rows:
        body = device_steps.loop_body(row)
        assert rows.index(body) <= rows.index(row)  # it is measured before
        assert body.members in (row.members, 8, 1)
    assert device_steps.loop_body(device_steps.Row("net", 256, "chunks:8"))[1:] == (8, "vmap")


def test_row_that_does_not_fit_into_memory_is_reported(monkeypatch):
    def measure(*_):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate\nmore")

    monkeypatch.setattr(device_steps, "measure", measure)
    row, device = device_steps.Row("net", 64, "vmap"), device_steps.Device("", "float32", 1.0)
    text = device_steps.measure_or_explain(row, device_steps.DRY_RUN, device, {})
    assert text == "out of memory"


@pytest.mark.slow
def test_costs_of_members_side_by_side_on_a_tpu():
    (chip,) = preflight.find_target("v5litepod-1").devices
    options = argparse.Namespace(net="mobilenetv3/s-5", batch=2, side=32, effort=-1)
    row, *operations = tpu.count_costs(options, "wide:2", 2, chip).splitlines()
    gflop, gigabytes, tiles, peak, seconds = map(float, row.split())
    assert min(gflop, gigabytes, peak, seconds) > 0
    assert 1 < tiles < 128
    assert len(operations) == 2
    assert all(" MB: " in line for line in operations)
