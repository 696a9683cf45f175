"""The benchmarks' race: who takes part, in turn, each in a process of its own."""

import os

import pytest

from benchmarks import contest, rivals, sweep
from tinyjax.population.options import select_members


def sleeper(file, name):
    def call():
        with open(file, "a") as lines:
            lines.write(f"{name} {os.getpid()}\n")

    return call


def absent():
    raise ImportError("torch is not installed: pip install torch")


def broken():
    os._exit(3)


def test_contestants_take_turns_and_who_is_absent_is_a_line(tmp_path, capsys):
    calls = tmp_path / "calls"
    contestants = {
        "a": (sleeper, (str(calls), "a")),
        "b": (sleeper, (str(calls), "b")),
        "torch": (absent, ()),
        "broken": (broken, ()),
    }
    times, built, lines = contest.race(contestants, rounds=4)
    assert {name: len(t) for name, t in times.items()} == {"a": 4, "b": 4}
    assert list(built) == ["a", "b"]
    assert lines == [
        "torch: torch is not installed: pip install torch",
        "broken: ended while it was built; what it said is above",
    ]
    names, processes = zip(*(line.split() for line in calls.read_text().splitlines()), strict=True)
    assert "".join(names) == "aabb" * (contest.WARM + 4)  # the first of a turn is not counted
    assert len({*processes, str(os.getpid())}) == 3
    contest.print_race("net", contestants, rounds=4)
    assert "pip install torch" in capsys.readouterr().out


def test_a_ratio_is_the_median_of_rounds():
    assert contest.ratio([1.0, 2.0, 30.0], [2.0, 4.0, 3.0]) == 0.5
    assert contest.milliseconds([0.001, 0.002, 0.003]) == "2.0 ± 1.0"


def test_a_sweep_runs_against_the_same_networks():
    config = sweep.get_config("steps=7")
    assert (config.schedule.steps, config.batch) == (7, sweep.BATCH)
    members = select_members(sweep.__file__, config)
    (whole,) = sweep.commands("sweep", 7, "folder")
    assert whole[2:] == ["--config", f"{sweep.__file__}:steps=7", "--workdir", "folder/run"]
    chosen = []
    for line in sweep.commands("processes", 7, "folder"):
        only = [line[i + 1] for i, word in enumerate(line) if word == "--sweep.only"]
        chosen += select_members(sweep.__file__, config, only)
    assert sorted(chosen) == sorted(members)
    ((_, _, *lines),) = sweep.commands("in turn", 7, "folder")
    assert len({line.split()[3] for line in lines}) == len(members) == 24


def test_what_is_missing_is_said_with_how_to_install_it(monkeypatch):
    monkeypatch.setattr(rivals, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="torch is not installed: pip install torch torchvision"):
        rivals.torch_network("mobilenetv3/s-3", 10)
