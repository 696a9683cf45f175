"""Preflight through its command, which compiles for chips that this machine does not have."""

import math
from pathlib import Path

import jax
import pytest

from tests.configs import sweep
from tinyjax import preflight
from tinyjax.errors import UserError
from tinyjax.population import compiler
from tinyjax.population.options import select_members
from tinyjax.run import accelerators
from tinyjax.tasks import get_task

SWEEP = str(Path(__file__).parent / "configs" / "sweep.py")


def run_preflight(capsys, *argv):
    """Exit code and standard output."""
    return preflight.main(["--config", SWEEP, *argv]), capsys.readouterr().out


def test_eight_members_on_four_chips(tmp_path, capsys):
    prices = tmp_path / "prices.yaml"
    prices.write_text("v5e: {demand: 36.0e+6, spot: 9.0e+6}\n")
    code, out = run_preflight(capsys, "--accelerator", "v5litepod-4", "--prices", str(prices))
    assert code == 0, out
    lines = [line.strip() for line in out.splitlines()]
    assert lines[0].startswith(
        "8 members in 1 populations for v5litepod-4: 4 x v5e, 2x2, one machine"
    )
    assert lines[1] == "population 0: 8 members, 2 per chip on a grid of 4 x 1, by map"
    assert [line.split()[0] for line in lines[2:12:5]] == ["map", "vmap"]
    assert lines.count("collectives: 0 across members, 0 among shards of a batch") == 2
    milliseconds, _ = (float(line.split()[0]) for line in lines if "ms per step at best" in line)
    (cost,) = (line for line in lines if line.startswith("training takes"))
    demand, spot = (
        float(word.strip("$").replace(",", "")) for word in cost.split() if word[0] == "$"
    )
    # 6 steps on 4 chips at $10,000 per second
    assert demand == pytest.approx(6 * 4 * milliseconds / 1e3 * 1e4, rel=0.01)
    assert spot == pytest.approx(demand / 4, rel=1e-3)
    assert lines[-1] == "it fits"


def test_batch_spread_over_chips(capsys):
    code, out = run_preflight(
        capsys, "--accelerator", "v6e-4", "--sweep.only", "model.backbone=mobilenetv3/s-6",
        "--sweep.only", "optimizer.lr=0.001", "--sweep.limit", "1",
    )  # fmt: skip
    assert code == 0, out
    assert "1 members, 1 per chip on a grid of 2 x 2" in out
    assert "collectives: 0 across members" in out
    assert "collectives: 0 across members, 0 among" not in out


COUNTS = compiler.StepCounts(1.0, 1e9, 1e9, 2**20, 0, 2**20, 0, 0)


@pytest.fixture(scope="module")
def lowered():
    """The lowered step of the first member on one chip."""
    config, task = sweep.get_config(), get_task("detect")
    training = task.load(config.data, config.data.train)
    (member,) = select_members(SWEEP, config, limit=1)
    devices = preflight.find_target("v5litepod-1").devices
    return compiler.lower_step(config, [member], task, training, devices, "none")


def preflight_with(capsys, monkeypatch, lowered, compile_step):
    """`run_preflight` with one member on one chip, and with this function as the compiler."""
    monkeypatch.setattr(compiler, "lower_step", lambda *_: lowered)
    monkeypatch.setattr(compiler, "compile_step", compile_step)
    return run_preflight(capsys, "--accelerator", "v5litepod-1", "--sweep.limit", "1")


def test_step_that_exceeds_the_memory_does_not_fit(capsys, monkeypatch, lowered):
    slice = accelerators.SLICES["v5litepod-1"]
    small = slice._replace(chip=slice.chip._replace(memory=2**20))
    monkeypatch.setitem(accelerators.SLICES, "v5litepod-1", small)
    code, out = preflight_with(capsys, monkeypatch, lowered, lambda _: COUNTS)
    assert code == preflight.DOES_NOT_FIT
    assert out.splitlines()[-1] == "it does not fit, see above"


def test_step_that_the_compiler_rejects_does_not_fit(capsys, monkeypatch, lowered):
    def reject(_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 318.56G of 15.75G hbm.\nmore")

    code, out = preflight_with(capsys, monkeypatch, lowered, reject)
    assert code == preflight.DOES_NOT_FIT
    assert "none   RESOURCE_EXHAUSTED: 318.56G of 15.75G hbm." in out


def test_collectives_across_members_do_not_pass(capsys, monkeypatch, lowered):
    counts = COUNTS._replace(collectives_across=1)
    code, out = preflight_with(capsys, monkeypatch, lowered, lambda _: counts)
    assert code == preflight.DOES_NOT_FIT
    assert "collectives: 1 across members" in out


def test_local_devices(capsys, monkeypatch):
    """Without compiling, which `test_mapped_step_of_two_members_counts_twice` does for a CPU."""
    monkeypatch.setattr(compiler, "compile_step", lambda _: COUNTS)
    code, out = run_preflight(capsys, "--accelerator", "cpu", "--sweep.limit", "1")
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


def test_mapped_step_of_two_members_counts_twice():
    """The compiler counts the body of a loop once."""
    config = sweep.get_config()
    task = get_task(config.task)
    training = task.load(config.data, config.data.train)
    members = select_members(SWEEP, config, limit=2)
    one, two = (
        compiler.compile_step(
            compiler.lower_step(config, members[:n], task, training, jax.devices()[:1], method)
        )
        for n, method in ((1, "none"), (2, "map"))
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
