"""Calls take turns in processes of their own. Times are not compared with anything."""

import os

import pytest

from tinyjax.errors import UserError
from tinyjax.run import timing


def build(file, names):
    def make_call(name):
        def call():
            with open(file, "a", encoding="utf-8") as lines:
                lines.write(f"{name} {os.getpid()}\n")

        return call

    return {name: make_call(name) for name in names}


def build_without_package():
    raise UserError("pip install it")


@pytest.mark.slow
def test_all_calls_take_turns_in_their_processes(tmp_path):
    calls = tmp_path / "calls"
    candidates = {
        "first": (build, (str(calls), "ab")),
        "missing": (build_without_package, ()),
        "second": (build, (str(calls), "c")),
    }
    result = timing.compare(candidates, rounds=2)
    assert {p: {n: len(t) for n, t in c.items()} for p, c in result.seconds.items()} == {
        "first": {"a": 2, "b": 2}, "second": {"c": 2},
    }  # fmt: skip
    assert result.unavailable == {"missing": "pip install it"}
    names, processes = zip(*(line.split() for line in calls.read_text().splitlines()), strict=True)
    # The first of two calls in a turn is not timed.
    assert "".join(names) == "aabbcc" * (timing.WARMUP_ROUNDS + 2)
    assert len({*processes, str(os.getpid())}) == 3
