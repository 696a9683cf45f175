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

from tests.configs import classifier, detector, sweep, sweep_classifier
from tests.test_classify import StopAtCheck
from tinyjax import step as steps
from tinyjax.data.sampling import gather
from tinyjax.population.networks import input_shapes
from tinyjax.population.options import select_members
from tinyjax.population.stack import hyper_arrays
from tinyjax.run.csv_files import read_rows
from tinyjax.tasks import get_task
from tinyjax.train import STOPPED
from tinyjax.train import train as train_run

ROOT = Path(__file__).parents[2]
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


@pytest.mark.slow
def test_members_side_by_side_train_as_they_do_alone():
    """Nine classifiers on all devices, two at a time side by side: 20 steps of SGD in float64."""
    members = json.loads(run_on_eight_devices("-m", "tests.population.classifier_steps"))
    assert len(members) == 9
    for member in members:
        assert max(member["losses"], member["weights"]) < 1e-9
        assert member["change"] != 0


def check_equal_losses(folder, expected_folder, steps):
    """The losses of `folder`, for all steps of its members, equal those of a run of more members on
    one device, up to rounding.
    """
    losses, expected = read_losses(folder), read_losses(expected_folder)
    assert len(losses) == steps
    np.testing.assert_allclose([*losses.values()], [expected[key] for key in losses], rtol=2e-3)


@pytest.fixture
def train_on_eight_devices(noise_images, tmp_path):
    """`train_on_eight_devices(module, *argv)`: train a config module on images of noise; returns
    the run's folder and the collective operations of its step.
    """

    def train(module, *argv):
        folder, dump = tmp_path / "run", tmp_path / "dump"
        argv = ("--config", f"{module.__file__}:{noise_images}", "--workdir", str(folder), *argv)
        run_on_eight_devices("-m", "tinyjax.train", *argv, dump=dump)
        return folder, find_collectives(dump)

    return train


def check_collectives_within_pairs(collectives):
    """Devices are [member, data] = [4, 2]: only the two shards of a batch exchange sums."""
    assert {operation for operation, _ in collectives} == {"all-reduce"}
    for _, line in collectives:
        assert "replica_groups={{0,1},{2,3},{4,5},{6,7}}" in line or "[4,2]<=[8]" in line, line


@pytest.mark.slow
def test_three_members_over_two_shards_each(train_once, train_on_eight_devices):
    """On a grid of four by two devices, a quarter of which is idle, members train as on one."""
    folder, collectives = train_on_eight_devices(sweep_classifier, "--sweep.limit", "3")
    check_collectives_within_pairs(collectives)
    check_equal_losses(folder, train_once("sweep_classifier") / "run", 3 * 6)
    assert len([*(folder / "weights").glob("*.safetensors")]) == 6


@pytest.mark.slow
def test_members_over_devices(train_once, train_on_eight_devices):
    """Five members on eight devices, three of which are idle, train as on one device, without
    communication between devices.
    """
    folder, collectives = train_on_eight_devices(sweep_classifier, "--sweep.limit", "5")
    assert collectives == []
    check_equal_losses(folder, train_once("sweep_classifier") / "run", 5 * 6)
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


@pytest.mark.slow
def test_one_member_over_two_shards(train_once, train_on_eight_devices):
    """A single run on eight devices: its batch of four has two shards, which exchange sums only."""
    folder, collectives = train_on_eight_devices(detector, "--config.eval_every=6")
    check_collectives_within_pairs(collectives)
    check_equal_losses(folder, train_once("detector") / "run", 6)


def test_a_single_run_compiles_the_bare_step(train_once, noise_images):
    """The text of its program equals that of one member's step without a population around it."""
    (dumped,) = (train_once("classifier") / "programs").glob("*jit_train_step*.mlir")
    config = classifier.get_config(str(noise_images))
    task, o, s = get_task(config.task), config.optimizer, config.schedule
    training = task.load(config.data, config.data.train)
    model = task.model_functions(config, training.classes, input_shapes(training))
    tx = steps.make_optimizer(o.name, o.momentum, o.b2, o.clip_norm)
    step = steps.make_step(
        model, tx, steps.make_schedule(s.steps, s.warmup, s.decay_start, s.final_lr_scale),
        steps.select_trainable(dict.fromkeys([*model.init(0).params, *model.init(0).stats], 1.0)),
    )  # fmt: skip

    def train_step(state, data, hyper, subset):
        index = task.sample(hyper["seed"], state.step, config, data)
        return step(state, gather(data, index), hyper)

    state = steps.init_state(model.init(config.seed), tx)
    bare = jax.jit(train_step, donate_argnums=0).lower(
        state, task.device_arrays(training), hyper_arrays(config), {}
    )
    # A dump names the source location of each operation.
    text = re.sub(r"^#loc.*\n", "", dumped.read_text(), flags=re.MULTILINE)
    text = re.sub(r' loc\((?:[^()"]|"[^"]*"|\([^()]*\))*\)', "", text)
    assert text == bare.as_text()
