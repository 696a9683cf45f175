"""Members and batches over eight simulated devices."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.configs import detector, sweep
from tests.test_classify import StopAtCheck
from tinyjax import step as steps
from tinyjax.data.sampling import gather
from tinyjax.population.networks import input_shapes
from tinyjax.population.options import select_members
from tinyjax.population.stack import hyper_arrays
from tinyjax.tasks import get_task
from tinyjax.train import STOPPED
from tinyjax.train import main as train_main
from tinyjax.train import train as train_run

ROOT = Path(__file__).parents[2]
CONFIG = str(ROOT / "tests" / "configs" / "detector.py")
SWEEP = str(ROOT / "tests" / "configs" / "sweep.py")
COLLECTIVE = re.compile(
    r"\b(all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?\("
)


def on_eight_devices(*argv, dump=None):
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    if dump:
        flags += f" --xla_dump_to={dump} --xla_dump_hlo_as_text --xla_dump_hlo_module_re=.*step.*"
    env = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}
    if dump:  # what comes from the cache is not compiled, and not dumped
        env["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    done = subprocess.run([sys.executable, *argv], env=env, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def losses(folder):
    with (folder / "metrics.csv").open(newline="") as stream:
        return {
            (row["member"], row["step"]): float(row["value"])
            for row in csv.DictReader(stream)
            if (row["split"], row["metric"]) == ("train", "loss")
        }


def collectives(dump):
    """Those of the compiled step: operation and whole line."""
    (text,) = dump.glob("*jit_train_step*after_optimizations.txt")
    lines = text.read_text().splitlines()
    return [(m[1], line) for line in lines if (m := COLLECTIVE.search(line))]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Five members on one device."""
    folder = tmp_path_factory.mktemp("one") / "run"
    argv = ["--config", SWEEP, "--workdir", str(folder), "--sweep.limit", "5"]
    assert train_main(argv) == 0
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A plain run on one device, in "run", and what it compiled, in "dump"."""
    folder = tmp_path_factory.mktemp("plain")
    jax.config.update("jax_dump_ir_to", str(folder / "dump"))
    try:
        assert train_main(["--config", CONFIG, "--workdir", str(folder / "run")]) == 0
    finally:
        jax.config.update("jax_dump_ir_to", "")
    return folder


@pytest.mark.slow
def test_four_shards_of_a_batch_are_one():
    """Under SGD in float64, with the true losses, augmentation and mixing."""
    found = json.loads(on_eight_devices("-m", "tests.population.device_steps"))
    assert found.keys() == {"detect", "classify"}
    for task, differences in found.items():
        assert max(differences.values()) < 1e-9, task


def test_members_over_devices(alone, tmp_path):
    """Five members on eight devices, three of them idle: nothing is sent between them, and each
    learns as on one device. What they save one device goes on from.
    """
    argv = ["-m", "tinyjax.train", "--config", SWEEP, "--sweep.limit", "5"]
    folder, dump = tmp_path / "run", tmp_path / "dump"
    on_eight_devices(*argv, "--workdir", str(folder), dump=dump)
    assert collectives(dump) == []
    ids = [member.id for member in select_members(SWEEP, sweep.get_config(), limit=5)]
    ours, theirs = losses(folder), losses(alone)
    assert ours.keys() == theirs.keys() == {(id, str(step)) for id in ids for step in range(1, 7)}
    np.testing.assert_allclose([*ours.values()], [theirs[key] for key in ours], rtol=2e-3)
    assert len([*(folder / "weights").glob("*.safetensors")]) == 10


@pytest.mark.slow
def test_a_run_may_go_on_with_more_devices(tmp_path):
    """Stopped on one device, finished on eight: the state in a checkpoint is the members' alone."""
    folder = tmp_path / "run"
    argv = ["--config", SWEEP, "--workdir", str(folder), "--sweep.limit", "3"]
    config = sweep.get_config()
    members = select_members(SWEEP, config, limit=3)
    stop = StopAtCheck(config.save_every + 1)
    assert train_run(config, folder, stop, members) == STOPPED
    on_eight_devices("-m", "tinyjax.train", *argv)
    said = (folder / "log.txt").read_text()
    assert "8 x cpu" in said
    assert re.search(r"resuming at step [1-5] of 6", said)
    assert len(losses(folder)) == 3 * 6


def test_one_member_over_two_shards(plain, tmp_path):
    """A plain run on eight devices: its batch of four is two shards, and only sums cross them."""
    folder, dump = tmp_path / "run", tmp_path / "dump"
    on_eight_devices(
        *("-m", "tinyjax.train", "--config", CONFIG, "--workdir", str(folder)), dump=dump
    )
    ours, theirs = losses(folder), losses(plain / "run")
    np.testing.assert_allclose([*ours.values()], [*theirs.values()], rtol=2e-3)
    found = collectives(dump)
    assert {operation for operation, _ in found} == {"all-reduce"}
    for _, line in found:  # devices are [member, data] = [4, 2]
        assert "replica_groups={{0,1},{2,3},{4,5},{6,7}}" in line or "[4,2]<=[8]" in line, line


def test_a_plain_run_is_the_bare_step(plain):
    """What a run of one member compiles, as text, is the member's step and nothing around it."""
    (dumped,) = (plain / "dump").glob("*jit_train_step*.mlir")
    config = detector.get_config()
    task, o, s = get_task(config.task), config.optimizer, config.schedule
    training = task.load(config.data, config.data.train)
    model = task.functions(config, training.classes, input_shapes(training))
    tx = steps.make_optimizer(o.name, o.momentum, o.b2, o.clip_norm)
    step = steps.make_step(
        model, tx, steps.make_schedule(s.steps, s.warmup, s.decay_start, s.final_lr_scale),
        steps.trainable(dict.fromkeys([*model.init(0).params, *model.init(0).stats], 1.0)),
    )  # fmt: skip
    size = len(training.names)

    def train_step(state, data, hyper, subset):
        index = task.sample(hyper["seed"], state.step, 4, size)
        return step(state, gather(data, index), hyper)

    state = steps.init_state(model.init(config.seed), tx)
    bare = jax.jit(train_step, donate_argnums=0).lower(
        state, task.device_arrays(training), hyper_arrays(config), {}
    )
    # A dump names the places in the source that operations come from.
    text = re.sub(r"^#loc.*\n", "", dumped.read_text(), flags=re.MULTILINE)
    text = re.sub(r' loc\((?:[^()"]|"[^"]*"|\([^()]*\))*\)', "", text)
    assert text == bare.as_text()
