"""A sweep that is killed, stopped or cut into shards ends with the tables of an undisturbed one."""

import random
import signal
import time

import pytest

from tests.test_resume import HERE, contents, run, start

SWEEP = ("--config", str(HERE / "configs" / "sweep_two_batches.py"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    code, _, err = run(folder, more=SWEEP)
    assert code == 0, err
    return folder


def killed(folder, times, longest):
    """A run that is killed so many times, each after a random while."""
    draw = random.Random(time.time())
    for _ in range(times):
        process = start(folder, more=SWEEP)
        while process.poll() is None and not (folder / "plan.json").exists():
            time.sleep(0.01)
        time.sleep(draw.uniform(0, longest))
        process.kill()
        process.communicate()
    code, _, err = run(folder, more=SWEEP)
    assert code == 0, err


@pytest.mark.slow
def test_killed_at_random_times(undisturbed, tmp_path):
    killed(tmp_path / "run", 2, 30)
    assert contents(tmp_path / "run") == contents(undisturbed)


@pytest.mark.slow
def test_killed_twenty_times(undisturbed, tmp_path):
    killed(tmp_path / "run", 20, 40)
    assert contents(tmp_path / "run") == contents(undisturbed)


def test_told_to_stop_and_gone_on_with_in_shards(undisturbed, tmp_path):
    """The plan is two populations: the first process is stopped in one, two others do the rest."""
    folder = tmp_path / "run"
    process = start(folder, more=SWEEP)
    while process.poll() is None and not list(folder.glob("populations/*/metrics.csv")):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate()
    assert process.returncode == 75, err
    assert "saved at step" in out
    code, out, err = run(folder, more=[*SWEEP, "--shard", "1/2"])
    assert code == 0, err
    assert "shard 1 of 2 is finished; other shards still train populations 0" in out
    assert not (folder / "results.csv").exists()
    code, out, err = run(folder, more=[*SWEEP, "--shard", "0/2"])
    assert code == 0, err
    assert contents(folder) == contents(undisturbed)


@pytest.mark.parametrize("shard", ["2/2", "1", "a/b", "-1/2"])
def test_a_shard_that_is_none(shard, tmp_path):
    code, _, err = run(tmp_path / "run", more=[*SWEEP, f"--shard={shard}"])
    assert code == 2
    assert f"--shard {shard}: give i/n" in err
    assert "Traceback" not in err
