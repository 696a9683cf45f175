"""A sweep that is killed, stopped or divided into shards ends with the files of one that is not."""

import signal

import pytest

from tests.test_resume import (
    config_path,
    kill_at_random_times,
    read_contents,
    start,
    train,
    wait_for,
)
from tinyjax.errors import exit_code
from tinyjax.train import main as train_main

NAME = "sweep_two_populations"


@pytest.fixture
def config(noise_images):
    return config_path(NAME, noise_images)


@pytest.mark.slow
def test_sweep_killed_at_random_times_resumes_bit_identical(config, train_once, tmp_path):
    folder = tmp_path / "run"
    kill_at_random_times(8, "plan.json", 8, config, folder)
    code, _, err = train(config, folder)
    assert code == 0, err
    assert read_contents(folder) == read_contents(train_once(NAME) / "run")


@pytest.mark.slow
def test_stopped_sweep_is_finished_by_shards(config, train_once, tmp_path, capsys):
    """Of two populations: one process is stopped in the first, two shards train the rest."""
    folder = tmp_path / "run"
    process = start(config, folder)
    wait_for(folder, "populations/*/metrics.csv", process)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate()
    assert process.returncode == 75, err
    assert "saved at step" in out
    argv = ["--config", config, "--workdir", str(folder)]
    assert train_main([*argv, "--shard", "1/2"]) == 0
    message = "shard 1 of 2 is finished; not yet finished by other shards: populations 0"
    assert message in capsys.readouterr().out
    assert not (folder / "results.csv").exists()
    assert train_main([*argv, "--shard", "0/2"]) == 0
    assert read_contents(folder) == read_contents(train_once(NAME) / "run")


@pytest.mark.parametrize("shard", ["2/2", "1", "a/b", "-1/2"])
def test_invalid_shards_are_rejected(shard, config, tmp_path, capsys):
    argv = ["--config", config, "--workdir", str(tmp_path / "run"), f"--shard={shard}"]
    assert exit_code(lambda: train_main(argv)) == 2
    error = capsys.readouterr().err
    assert f"--shard {shard}: give i/n" in error
    assert "Traceback" not in error
