"""Members and batches spread over eight simulated devices."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.configs import detector, sweep, sweep_classifier
from tests.miniatures import write_noise_images
from tests.test_classify import StopAtCheck
from tinyjax import step as steps
from tinyjax.data.sampling import gather
from tinyjax.population.networks import input_shapes
from tinyjax.population.options import select_members
from tinyjax.population.stack import hyper_arrays
from tinyjax.run.csv_files import read_rows
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


def run_on_eight_devices(*argv, dump=None):
    """Run Python with `argv` and return its output. dump: folder for the compiled step as text."""
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    if dump:
        flags += f" --xla_dump_to={dump} --xla_dump_hlo_as_text --xla_dump_hlo_module_re=.*step.*"
    env = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}
    if dump:  # a program from the cache would not be dumped
        env["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    process = subprocess.run([sys.executable, *argv], env=env, text=True, capture_output=True)
    assert process.returncode == 0, process.stderr[-3000:]
    return process.stdout


def read_losses(folder):
    return {
        (row["member"], row["step"]): float(row["value"])
        for row in read_rows(folder / "metrics.csv")
        if (row["split"], row["metric"]) == ("train", "loss")
    }


def find_collectives(dump):
    """The compiled step's collective operations: name and line."""
    (text,) = dump.glob("*jit_train_step*after_optimizations.txt")
    lines = text.read_text().splitlines()
    return [(m[1], line) for line in lines if (m := COLLECTIVE.search(line))]


@pytest.mark.slow
def test_training_does_not_depend_on_the_number_of_shards():
    """With SGD in float64, the tasks' losses, augmentation and mixed images."""
    differences = json.loads(run_on_eight_devices("-m", "tests.population.device_steps"))
    assert differences.keys() == {"detect", "classify"}
    for task, values in differences.items():
        assert max(values.values()) < 1e-9, task


def test_members_over_devices(tmp_path):
    """Five members on eight devices, three of which are idle, train as on one device, without
    communication between devices.
    """
    images = write_noise_images(tmp_path / "images")
    argv = ["--config", f"{sweep_classifier.__file__}:{images}", "--sweep.limit", "5"]
    single, folder, dump = (tmp_path / name for name in ("one-device", "run", "dump"))
    assert train_main([*argv, "--workdir", str(single)]) == 0
    run_on_eight_devices("-m", "tinyjax.train", *argv, "--workdir", str(folder), dump=dump)
    assert find_collectives(dump) == []
    config = sweep_classifier.get_config(str(images))
    ids = [member.id for member in select_members(sweep_classifier.__file__, config, limit=5)]
    losses, expected = read_losses(folder), read_losses(single)
    assert losses.keys() == {(id, str(step)) for id in ids for step in range(1, 7)}
    assert losses.keys() == expected.keys()
    np.testing.assert_allclose([*losses.values()], [expected[key] for key in losses], rtol=2e-3)
    assert len([*(folder / "weights").glob("*.safetensors")]) == 10


@pytest.mark.slow
def test_a_run_resumes_on_more_devices(tmp_path):
    """A sweep stopped on one device is finished on eight: checkpoints hold no idle members."""
    folder = tmp_path / "run"
    argv = ["--config", SWEEP, "--workdir", str(folder), "--sweep.limit", "3"]
    config = sweep.get_config()
    members = select_members(SWEEP, config, limit=3)
    stop = StopAtCheck(config.save_every + 1)
    assert train_run(config, folder, stop, members) == STOPPED
    run_on_eight_devices("-m", "tinyjax.train", *argv)
    log = (folder / "log.txt").read_text()
    assert "8 x cpu" in log
    assert re.search(r"resuming at step [1-5] of 6", log)
    assert len(read_losses(folder)) == 3 * 6


def test_one_member_over_two_shards(train_once, tmp_path):
    """A single run on eight devices: its batch of four has two shards, which exchange sums only."""
    folder, dump = tmp_path / "run", tmp_path / "dump"
    argv = ["-m", "tinyjax.train", "--config", CONFIG, "--workdir", str(folder)]
    run_on_eight_devices(*argv, "--config.eval_every=6", dump=dump)
    losses, expected = read_losses(folder), read_losses(train_once("detector") / "run")
    assert losses.keys() == expected.keys()
    np.testing.assert_allclose([*losses.values()], [*expected.values()], rtol=2e-3)
    collectives = find_collectives(dump)
    assert {operation for operation, _ in collectives} == {"all-reduce"}
    for _, line in collectives:  # devices are [member, data] = [4, 2]
        assert "replica_groups={{0,1},{2,3},{4,5},{6,7}}" in line or "[4,2]<=[8]" in line, line


def test_a_single_run_compiles_the_bare_step(train_once):
    """The text of its program equals that of one member's step without a population around it."""
    (dumped,) = (train_once("detector") / "programs").glob("*jit_train_step*.mlir")
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
    # A dump names the source location of each operation.
    text = re.sub(r"^#loc.*\n", "", dumped.read_text(), flags=re.MULTILINE)
    text = re.sub(r' loc\((?:[^()"]|"[^"]*"|\([^()]*\))*\)', "", text)
    assert text == bare.as_text()
