"""A sweep that is killed, stopped or divided into shards ends with the files of one that is not."""

import random
import signal
import time

import pytest

from tests.miniatures import write_noise_images
from tests.test_resume import HERE, read_contents, start, train, wait_for
from tinyjax.errors import exit_code
from tinyjax.train import main as train_main


@pytest.fixture(scope="module")
def sweep_flags(tmp_path_factory):
    """Flags of a sweep over images of two classes."""
    images = write_noise_images(tmp_path_factory.mktemp("images"))
    return ["--config", f"{HERE / 'configs' / 'sweep_two_populations.py'}:{images}"]


@pytest.fixture(scope="module")
def uninterrupted(sweep_flags, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    code, _, err = train(folder, overrides=sweep_flags)
    assert code == 0, err
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("kills", "max_seconds"), [(2, 15), (20, 20)])
def test_killed_at_random_times(sweep_flags, uninterrupted, tmp_path, kills, max_seconds):
    folder, rng = tmp_path / "run", random.Random(time.time())
    for _ in range(kills):
        process = start(folder, overrides=sweep_flags)
        wait_for(folder / "plan.json", process)
        time.sleep(rng.uniform(0, max_seconds))
        process.kill()
        process.communicate()
    code, _, err = train(folder, overrides=sweep_flags)
    assert code == 0, err
    assert read_contents(folder) == read_contents(uninterrupted)


def test_a_stopped_sweep_is_finished_by_shards(sweep_flags, uninterrupted, tmp_path):
    """Of two populations: one process is stopped in the first, two shards train the rest."""
    folder = tmp_path / "run"
    process = start(folder, overrides=sweep_flags)
    while process.poll() is None and not list(folder.glob("populations/*/metrics.csv")):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate()
    assert process.returncode == 75, err
    assert "saved at step" in out
    code, out, err = train(folder, overrides=[*sweep_flags, "--shard", "1/2"])
    assert code == 0, err
    assert "shard 1 of 2 is finished; other shards still train populations 0" in out
    assert not (folder / "results.csv").exists()
    code, out, err = train(folder, overrides=[*sweep_flags, "--shard", "0/2"])
    assert code == 0, err
    assert read_contents(folder) == read_contents(uninterrupted)


@pytest.mark.parametrize("shard", ["2/2", "1", "a/b", "-1/2"])
def test_invalid_shards_are_rejected(shard, sweep_flags, tmp_path, capsys):
    argv = [*sweep_flags, "--workdir", str(tmp_path / "run"), f"--shard={shard}"]
    assert exit_code(lambda: train_main(argv)) == 2
    error = capsys.readouterr().err
    assert f"--shard {shard}: give i/n" in error
    assert "Traceback" not in error
