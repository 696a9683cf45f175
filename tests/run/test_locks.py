"""At most one process writes each shard of a run folder."""

import errno
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.run.test_distributed import start as start_group
from tests.run.test_distributed import wait_all
from tests.test_resume import config_path, read_contents, start, wait_for
from tinyjax.errors import EX_UNAVAILABLE, MachineError, exit_code
from tinyjax.run.csv_files import read_rows
from tinyjax.run.locks import lock_shard
from tinyjax.train import main as train_main

ROOT = Path(__file__).parents[2]
REFUSAL = (
    r"error: {folder}: another process trains {shard}here \(host \S+, pid {pid}, heartbeat \d+ s "
    r"ago\); wait until it ends, or give another --workdir\n"
)


def refusal(folder, pid=r"\d+", shard=""):
    return REFUSAL.format(folder=re.escape(str(folder)), pid=pid, shard=shard)


def arguments(config, folder, *more):
    return ["--config", config, "--workdir", str(folder), *more]


def test_second_process_is_refused_until_the_first_dies(noise_images, train_once, tmp_path, capsys):
    config, folder = config_path("classifier", noise_images), tmp_path / "run"
    first = start(config, folder)
    wait_for(folder, "members.csv", first)
    first.send_signal(signal.SIGSTOP)
    argv = arguments(config, folder)
    try:
        code = exit_code(lambda: train_main([*argv, "--config.seed=1"]))
        error = capsys.readouterr().err
        assert json.loads((folder / "config.json").read_bytes())["seed"] == 0
    finally:
        first.kill()
    assert code == EX_UNAVAILABLE
    assert re.fullmatch(refusal(folder, first.pid), error)
    first.communicate()
    assert train_main(argv) == 0
    assert read_contents(folder) == read_contents(train_once("classifier") / "run")


@pytest.mark.slow
def test_of_two_processes_that_start_together_one_trains(noise_images, tmp_path):
    config, folder = config_path("classifier", noise_images), tmp_path / "run"
    processes = [start(config, folder, f"--config.seed={seed}") for seed in range(2)]
    codes, outputs = wait_all(processes)
    assert sorted(codes) == [0, EX_UNAVAILABLE], outputs
    winner = codes.index(0)
    assert json.loads((folder / "config.json").read_bytes())["seed"] == winner
    assert re.fullmatch(refusal(folder, processes[winner].pid), outputs[1 - winner])
    rows = [(r["step"], r["split"], r["metric"]) for r in read_rows(folder / "metrics.csv")]
    assert {*Counter(rows).values()} == {1}
    assert {step for step, *_ in rows} == {*"123456"}


@pytest.mark.slow
def test_shards_train_together_and_each_only_once(noise_images, train_once, tmp_path):
    name, folder = "sweep_two_populations", tmp_path / "run"
    config = config_path(name, noise_images)
    shards = ("0/2", "1/2", "0/2", "1/2")
    codes, outputs = wait_all([start(config, folder, "--shard", shard) for shard in shards])
    assert sorted(codes) == [0, 0, EX_UNAVAILABLE, EX_UNAVAILABLE], outputs
    for shard in "01":
        refused = refusal(folder, shard=f"shard {shard} of 2 ")
        assert sum(bool(re.fullmatch(refused, output)) for output in outputs) == 1
    assert read_contents(folder) == read_contents(train_once(name) / "run")


@pytest.mark.slow
def test_all_processes_of_a_group_are_refused(noise_images, tmp_path):
    config, folder = config_path("sweep_two_processes", noise_images), tmp_path / "run"
    with lock_shard(folder, (0, 1)):
        codes, outputs = wait_all(start_group(folder, config, 2, 2))
    assert codes == [EX_UNAVAILABLE] * 2, outputs
    assert all(f"error: {folder}: another process trains here" in output for output in outputs)
    assert not any("Traceback" in output for output in outputs)


@pytest.mark.parametrize("other", [(0, 2), (0, 1), (0, 3), (2, 3)])
def test_shards_of_another_number_are_refused(other, tmp_path):
    with lock_shard(tmp_path, (0, 2)) as first, lock_shard(tmp_path, (1, 2)) as second:
        assert (first, second) == (False, True)  # whether others train
        message = f"{tmp_path}: another process trains shard 0 of 2 here (no heartbeat yet)"
        with pytest.raises(MachineError, match=re.escape(message)), lock_shard(tmp_path, other):
            pass
    with lock_shard(tmp_path, other) as shared:
        assert not shared


def test_single_run_is_refused_where_a_shard_trains(noise_images, tmp_path, capsys):
    config, folder = config_path("classifier", noise_images), tmp_path / "run"
    with lock_shard(folder, (1, 2)):
        assert exit_code(lambda: train_main(arguments(config, folder))) == EX_UNAVAILABLE
    assert "another process trains shard 1 of 2 here" in capsys.readouterr().err


def test_shards_have_the_same_config_before_the_first_checkpoint(noise_images, tmp_path, capsys):
    config, folder = config_path("sweep_two_populations", noise_images), tmp_path / "run"
    argv = arguments(config, folder, "--shard", "0/2")
    too_large = ["--config.batch=100"]  # an error after the folder is created
    assert exit_code(lambda: train_main([*argv, *too_large])) == 2
    capsys.readouterr()
    with lock_shard(folder, (1, 2)):
        assert exit_code(lambda: train_main([*argv, "--config.batch=101"])) == 2
        message = "belongs to a run of another config (batch: 100 in the folder, 101 in this config"
        assert message in capsys.readouterr().err
    assert exit_code(lambda: train_main([*argv, "--config.batch=101"])) == 2
    assert "batch = 101: the training set has 8 images" in capsys.readouterr().err


def test_lock_of_a_killed_process_is_free_although_its_child_lives(tmp_path):
    code = (
        "import pathlib, subprocess, sys, time\n"
        "from tinyjax.run.locks import lock_shard\n"
        "with lock_shard(pathlib.Path(sys.argv[1]), (0, 1)):\n"
        "    child = subprocess.Popen(['sleep', '60'], close_fds=False)\n"
        "    print(child.pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], env=environment, stdout=subprocess.PIPE
    )
    child = int(process.stdout.readline())
    try:
        with pytest.raises(MachineError), lock_shard(tmp_path, (0, 1)):
            pass
        process.kill()
        process.wait()
        with lock_shard(tmp_path, (0, 1)) as shared:
            assert not shared
    finally:
        os.kill(child, signal.SIGKILL)
        process.stdout.close()


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK])
def test_file_system_without_locks_is_a_warning(code, tmp_path, monkeypatch, caplog):
    def no_locks(*_):
        raise OSError(code, os.strerror(code))

    (tmp_path / "heartbeats").mkdir()
    (tmp_path / "heartbeats" / "1-of-2.lock").touch()
    monkeypatch.setattr(fcntl, "flock", no_locks)
    monkeypatch.setattr("tinyjax.run.locks.log.propagate", True)
    with lock_shard(tmp_path, (0, 2)) as shared:
        assert not shared
    assert "this file system has no locks" in caplog.text
