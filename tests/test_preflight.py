"""Preflight through its command, which compiles for chips that this machine does not have."""

import math

import jax
import pytest

from tests.configs import classifier, detectors, pretrain, reid, sweep, sweep_classifier
from tests.tiny_backbones import MINIS, TINY
from tinyjax import preflight
from tinyjax.errors import UserError
from tinyjax.population import compiler
from tinyjax.population.options import select_members
from tinyjax.run import accelerators
from tinyjax.tasks import get_task


@pytest.fixture(scope="module")
def classifiers(noise_images):
    """The `--config` of a sweep of tiny classifiers."""
    return f"{sweep_classifier.__file__}:{noise_images}"


@pytest.fixture
def run_preflight(capsys, classifiers):
    """`run_preflight(*argv, config=classifiers)` -> exit code and standard output."""

    def run(*argv, config=classifiers):
        return preflight.main(["--config", config, *argv]), capsys.readouterr().out

    return run


@pytest.mark.slow
def test_six_members_on_four_chips(tmp_path, run_preflight, monkeypatch):
    # The printed milliseconds of a step have two decimals: on a slow chip these are precise.
    slice = accelerators.SLICES["v5litepod-4"]
    slow = slice.chip._replace(flops=slice.chip.flops / 1e4, bandwidth=slice.chip.bandwidth / 1e4)
    monkeypatch.setitem(accelerators.SLICES, "v5litepod-4", slice._replace(chip=slow))
    prices = tmp_path / "prices.yaml"
    prices.write_text("v5e: {demand: 36.0e+3, spot: 9.0e+3}\n")
    code, out = run_preflight(
        "--accelerator", "v5litepod-4", "--prices", str(prices),
        "--config.batch=3",  # which cannot be spread over chips
    )  # fmt: skip
    assert code == 0, out
    lines = [line.strip() for line in out.splitlines()]
    assert lines[0].startswith(
        "6 members in 1 populations for v5litepod-4: 4 x v5e, 2x2, one machine"
    )
    assert lines[1] == "population 0: 6 members, 2 per chip on a grid of 4 x 1, by wide"
    assert [line.split()[0] for line in lines[2:12:5]] == ["wide", "map"]
    assert lines.count("collectives: 0 across members, 0 among shards of a batch") == 2
    milliseconds, _ = (float(line.split()[0]) for line in lines if "ms per step at best" in line)
    (cost,) = (line for line in lines if line.startswith("training takes"))
    demand, spot = (
        float(word.strip("$").replace(",", "")) for word in cost.split() if word[0] == "$"
    )
    # 6 steps on 4 chips at $10 per second
    assert demand == pytest.approx(6 * 4 * milliseconds / 1e3 * 10, rel=0.01)
    assert spot == pytest.approx(demand / 4, rel=1e-3)
    assert lines[-1] == "the sweep fits"


@pytest.mark.slow
@pytest.mark.parametrize("name", MINIS.values())
def test_backbones_of_every_family_compile_for_a_chip(run_preflight, noise_images, name):
    config = f"{classifier.__file__}:{noise_images}"
    backbone = f"--config.model.backbone={name}"
    code, out = run_preflight("--accelerator", "v5litepod-1", backbone, config=config)
    assert code == 0, out
    assert out.splitlines()[-1] == "the sweep fits"


@pytest.mark.slow
@pytest.mark.parametrize("detector", ["retinanet,fpn", "faster_rcnn,nasfpn", "cascade_rcnn,bifpn"])
def test_every_detector_compiles_for_a_chip(run_preflight, detector):
    """On a TPU, RoIs are pooled by other operations than on a CPU."""
    config = f"{detectors.__file__}:{detector}"
    code, out = run_preflight("--accelerator", "v5litepod-1", config=config)
    assert code == 0, out
    assert out.splitlines()[-1] == "the sweep fits"


@pytest.mark.slow
@pytest.mark.parametrize("task", [reid, pretrain])
def test_recognition_compiles_for_a_chip(run_preflight, noise_images, task):
    config = f"{task.__file__}:{noise_images}"
    code, out = run_preflight("--accelerator", "v5litepod-1", config=config)
    assert code == 0, out
    assert out.splitlines()[-1] == "the sweep fits"


@pytest.mark.slow
@pytest.mark.parametrize("task", [reid, pretrain])
def test_batch_of_recognition_spread_over_chips(run_preflight, noise_images, task):
    config = f"{task.__file__}:{noise_images}"
    code, out = run_preflight("--accelerator", "v5litepod-4", config=config)
    assert code == 0, out
    (collectives,) = {line.strip() for line in out.splitlines() if "collectives:" in line}
    assert collectives.startswith("collectives: 0 across members")
    assert "0 among" not in collectives


@pytest.mark.slow
def test_batch_spread_over_chips(run_preflight):
    code, out = run_preflight(
        "--accelerator", "v6e-4", "--sweep.only", f"model.backbone={TINY}",
        "--sweep.only", "optimizer.lr=0.001", "--sweep.limit", "1", config=sweep.__file__,
    )  # fmt: skip
    assert code == 0, out
    assert "1 members, 1 per chip on a grid of 2 x 2" in out
    assert "collectives: 0 across members" in out
    assert "collectives: 0 across members, 0 among" not in out


COUNTS = compiler.StepCounts(1.0, 1e9, 1e9, 2**20, 0, 2**20, 0, 0)


@pytest.fixture(scope="module")
def lower_members(classifiers, noise_images):
    """`lower_members(count, devices, method)`: the lowered step of the first members."""
    config, task = sweep_classifier.get_config(str(noise_images)), get_task("classify")
    training = task.load(config.data, config.data.train)

    def lower(count, devices, method):
        members = select_members(classifiers, config, limit=count)
        return compiler.lower_step(config, members, task, training, devices, method)

    return lower


@pytest.fixture(scope="module")
def lowered(lower_members):
    """The lowered step of one member on one chip."""
    return lower_members(1, preflight.find_target("v5litepod-1").devices, "none")


@pytest.fixture
def run_with_compiler(run_preflight, lowered, monkeypatch):
    """`run_with_compiler(compile_step, *argv)`: preflight of one member on one chip with this
    compiler.
    """

    def run(compile_step, *argv):
        monkeypatch.setattr(compiler, "lower_step", lambda *_: lowered)
        monkeypatch.setattr(compiler, "compile_step", compile_step)
        return run_preflight("--accelerator", "v5litepod-1", "--sweep.limit", "1", *argv)

    return run


def test_step_that_exceeds_the_memory_does_not_fit(run_with_compiler, monkeypatch):
    slice = accelerators.SLICES["v5litepod-1"]
    small = slice._replace(chip=slice.chip._replace(memory=2**20))
    monkeypatch.setitem(accelerators.SLICES, "v5litepod-1", small)
    code, out = run_with_compiler(lambda _: COUNTS)
    assert code == preflight.DOES_NOT_FIT
    assert out.splitlines()[-1] == "the sweep does not fit, see above"


def test_step_that_the_compiler_rejects_does_not_fit(run_with_compiler):
    def reject(_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 318.56G of 15.75G hbm.\nmore")

    code, out = run_with_compiler(reject)
    assert code == preflight.DOES_NOT_FIT
    assert "none   RESOURCE_EXHAUSTED: 318.56G of 15.75G hbm." in out


def test_collectives_across_members_do_not_pass(run_with_compiler):
    code, out = run_with_compiler(lambda _: COUNTS._replace(collectives_across=1))
    assert code == preflight.DOES_NOT_FIT
    assert "collectives: 1 across members" in out


def test_bytes_of_a_larger_batch(run_with_compiler):
    compiled = iter((COUNTS, COUNTS._replace(bytes_moved=1.034e9, scratch_bytes=3 * 2**28)))
    code, out = run_with_compiler(lambda _: next(compiled), "--larger-batch", "10")
    assert code == 0, out
    line = "a batch of 10 instead of 4: +3 % bytes for +150 % images, 0.75 GiB per chip"
    assert line in [text.strip() for text in out.splitlines()]


def test_larger_batch_that_does_not_fit_or_is_not_larger(run_with_compiler):
    messages = iter([COUNTS, "RESOURCE_EXHAUSTED: 318.56G of 15.75G hbm."])

    def compile_step(_):
        if isinstance(counts := next(messages), str):
            raise jax.errors.JaxRuntimeError(counts)
        return counts

    code, out = run_with_compiler(compile_step, "--larger-batch", "128")
    assert code == 0, out  # the config's own batch fits
    assert "a batch of 128 instead of 4: RESOURCE_EXHAUSTED: 318.56G of 15.75G hbm." in out
    code, out = run_with_compiler(lambda _: COUNTS, "--larger-batch", "4")
    assert code == 0, out
    assert "a batch of 4 is not larger than 4" in out


@pytest.mark.slow
def test_larger_batch_takes_the_place_of_padding(run_preflight):
    code, out = run_preflight(
        "--accelerator", "v5litepod-1", "--sweep.limit", "1", "--larger-batch", "8",
        "--config.batch=1",
    )  # fmt: skip
    assert code == 0, out
    (line,) = (text for text in out.splitlines() if "a batch of 8 instead of 1" in text)
    more_bytes, more_images = (int(word) for word in line.split() if word.startswith("+"))
    assert 0 < more_bytes < more_images / 2 == 350, line


def test_larger_batch_than_there_are_images(run_preflight, monkeypatch):
    monkeypatch.setattr(compiler, "compile_step", lambda _: COUNTS)
    code, out = run_preflight("--accelerator", "cpu", "--sweep.limit", "1", "--larger-batch", "32")
    assert code == 0, out
    assert "a batch of 32 instead of 4: batch = 32: the subset of seed 0" in out


def test_local_devices(run_preflight, monkeypatch):
    """Without compiling, which `test_mapped_step_of_two_members_counts_twice` does for a CPU."""
    monkeypatch.setattr(compiler, "compile_step", lambda _: COUNTS)
    code, out = run_preflight("--accelerator", "cpu", "--sweep.limit", "1")
    assert code == 0, out
    assert "1 members, 1 per chip on a grid of 1 x 1" in out
    assert "at best" not in out  # the speed of a CPU is unknown


TEXT = """
  %all-reduce.1 = f32[8]{0} all-reduce(%x), channel_id=1, replica_groups=GROUPS, to_apply=%add
  %add = f32[8]{0} add(%y, %z)
"""


@pytest.mark.parametrize(
    ("groups", "within"),
    [
        ("{{0,1},{2,3}}", True),
        ("{{0,2},{1,3}}", False),
        ("[2,2]<=[4]", True),
        ("[2,2]<=[2,2]T(1,0)", False),
        ("[1,4]<=[4]", False),
        ("{}", False),
    ],
)
def test_collectives_within_a_batch_and_across_members(groups, within):
    counts = compiler.count_collectives(TEXT.replace("GROUPS", groups), 2)
    assert counts == ((1, 0) if within else (0, 1))


@pytest.mark.slow
def test_mapped_step_of_two_members_counts_twice(lower_members):
    """The compiler counts the body of a loop once."""
    one, two = (
        compiler.compile_step(lower_members(count, jax.devices()[:1], method))
        for count, method in ((1, "none"), (2, "map"))
    )
    assert two.flops == pytest.approx(2 * one.flops, rel=0.05)


@pytest.mark.parametrize(
    ("name", "near"), [("v5e-8", "v6e-8"), ("v5litepod-7", "v5litepod-8"), ("gpus", "gpu")]
)
def test_unknown_accelerators_are_refused(name, near):
    with pytest.raises(UserError, match=f"--accelerator {name}: did you mean '{near}'"):
        preflight.find_target(name)


@pytest.mark.parametrize(
    "text", ["[1, 2]", "v5e: 3", "v5e: {demand: much}", "v5e: {}", "v5e: {a: -1}"]
)
def test_invalid_prices_are_refused(text, tmp_path):
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(UserError, match=r"--prices .*p\.yaml: "):
        preflight.read_prices(tmp_path / "p.yaml")
    with pytest.raises(UserError, match="No such file"):
        preflight.read_prices(tmp_path / "none.yaml")


XPK = """
v5litepod-8 2x4 2 ct5lp-hightpu-4t tpu-v5-lite-podslice
v5litepod-16 4x4 4 ct5lp-hightpu-4t tpu-v5-lite-podslice
v5litepod-64 8x8 16 ct5lp-hightpu-4t tpu-v5-lite-podslice
v5litepod-256 16x16 64 ct5lp-hightpu-4t tpu-v5-lite-podslice
v6e-4 2x2 1 ct6e-standard-4t tpu-v6e-slice
v6e-8 2x4 2 ct6e-standard-4t tpu-v6e-slice
v6e-128 8x16 32 ct6e-standard-4t tpu-v6e-slice
v6e-256 16x16 64 ct6e-standard-4t tpu-v6e-slice
v5p-8 2x2x1 1 ct5p-hightpu-4t tpu-v5p-slice
v5p-64 2x4x4 8 ct5p-hightpu-4t tpu-v5p-slice
v5p-256 4x4x8 32 ct5p-hightpu-4t tpu-v5p-slice
v5p-2048 8x8x16 256 ct5p-hightpu-4t tpu-v5p-slice
v4-8 2x2x1 1 ct4p-hightpu-4t tpu-v4-podslice
v4-32 2x2x4 4 ct4p-hightpu-4t tpu-v4-podslice
v4-512 4x8x8 64 ct4p-hightpu-4t tpu-v4-podslice
v4-1024 8x8x8 128 ct4p-hightpu-4t tpu-v4-podslice
"""


def test_slices_are_those_of_the_vendor():
    """Names, topologies and machines: https://cloud.google.com/tpu/docs/v5e and the table of xpk
    1.16, in which each machine of a slice has four chips.
    """
    rows = {
        name: f"{slice.topology} {slice.hosts} {slice.chip.machine} {slice.chip.node}"
        for name, slice in accelerators.SLICES.items()
    }
    for line in XPK.strip().splitlines():
        name, _, row = line.partition(" ")
        if name.endswith("e-8") or name == "v5litepod-8":  # two machines only on Kubernetes
            row = row.replace(" 2 ", " 1 ")
        assert rows[name] == row, name
    for name, slice in accelerators.SLICES.items():
        assert math.prod(int(n) for n in slice.topology.split("x")) == slice.chips, name
