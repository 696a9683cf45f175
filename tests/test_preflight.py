"""Preflight through its command: programs are really compiled for chips that are not here."""

import math
from pathlib import Path

import jax
import pytest

from tinyjax import preflight
from tinyjax.errors import UserError
from tinyjax.population import compiler
from tinyjax.run import accelerators

SWEEP = str(Path(__file__).parent / "configs" / "sweep.py")


def said(capsys, *argv):
    """Exit code and what is printed."""
    return preflight.main(["--config", SWEEP, *argv]), capsys.readouterr().out


def test_eight_members_on_four_chips(tmp_path, capsys):
    prices = tmp_path / "prices.yaml"
    prices.write_text("v5e: {demand: 36.0e+6, spot: 9.0e+6}\n")
    code, out = said(capsys, "--accelerator", "v5litepod-4", "--prices", str(prices))
    assert code == 0, out
    lines = [line.strip() for line in out.splitlines()]
    assert lines[0].startswith(
        "8 members in 1 populations for v5litepod-4: 4 x v5e, 2x2, one machine"
    )
    assert lines[1] == "population 0: 8 members, 2 a chip on a grid of 4 x 1, by map"
    assert [line.split()[0] for line in lines[2:12:5]] == ["map", "vmap"]
    assert lines.count("collectives: 0 across members, 0 among shards of a batch") == 2
    (by_map, _) = (float(line.split()[0]) for line in lines if "ms a step at best" in line)
    (cost,) = (line for line in lines if line.startswith("training takes"))
    demand, spot = (
        float(word.strip("$").replace(",", "")) for word in cost.split() if word[0] == "$"
    )
    # 6 steps on 4 chips at $10,000 a second
    assert demand == pytest.approx(6 * 4 * by_map / 1e3 * 1e4, rel=0.01)
    assert spot == pytest.approx(demand / 4, rel=1e-3)
    assert lines[-1] == "it fits"


def test_shards_of_a_batch(capsys):
    code, out = said(
        capsys, "--accelerator", "v6e-4", "--sweep.only", "model.backbone=mobilenetv3/s-6",
        "--sweep.only", "optimizer.lr=0.001", "--sweep.limit", "1",
    )  # fmt: skip
    assert code == 0, out
    assert "1 members, 1 a chip on a grid of 2 x 2" in out
    assert "collectives: 0 across members" in out
    assert "collectives: 0 across members, 0 among" not in out


def test_what_does_not_fit(capsys, monkeypatch):
    one = accelerators.SLICES["v5litepod-1"]
    small = one._replace(chip=one.chip._replace(memory=2**20))
    monkeypatch.setitem(accelerators.SLICES, "v5litepod-1", small)
    monkeypatch.setattr(compiler, "count", lambda _: COUNTS)
    code, out = said(capsys, "--accelerator", "v5litepod-1", "--sweep.limit", "1")
    assert code == preflight.DOES_NOT_FIT
    assert out.splitlines()[-1] == "it does not fit, see above"


def test_what_the_compiler_refuses(capsys, monkeypatch):
    def refuses(_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 318.56G of 15.75G hbm.\nmore")

    monkeypatch.setattr(compiler, "count", refuses)
    code, out = said(capsys, "--accelerator", "v5litepod-1", "--sweep.limit", "1")
    assert code == preflight.DOES_NOT_FIT
    assert "none   RESOURCE_EXHAUSTED: 318.56G of 15.75G hbm." in out


COUNTS = compiler.StepCounts(1.0, 1e9, 1e9, 2**20, 0, 2**20, 0, 0)


def test_members_that_talk_to_each_other_do_not_pass(capsys, monkeypatch):
    monkeypatch.setattr(compiler, "count", lambda _: COUNTS._replace(across=1))
    code, out = said(capsys, "--accelerator", "v5litepod-1", "--sweep.limit", "1")
    assert code == preflight.DOES_NOT_FIT
    assert "collectives: 1 across members" in out


def test_devices_at_hand(capsys):
    code, out = said(capsys, "--accelerator", "cpu", "--sweep.limit", "1")
    assert code == 0, out
    assert "1 members, 1 a chip on a grid of 1 x 1" in out
    assert "at best" not in out  # of a CPU no roofline is known


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
def test_who_is_among_the_shards_of_a_batch(groups, within):
    found = compiler.count_collectives(TEXT.replace("GROUPS", groups), 2)
    assert found == ((1, 0) if within else (0, 1))


def test_a_step_of_two_members_that_is_mapped_counts_twice():
    """A loop's body is counted once by the compiler."""
    from tests.configs import sweep
    from tinyjax import tasks
    from tinyjax.population.options import select_members

    config = sweep.get_config()
    kind = tasks.module(config.task)
    training = kind.load(config.data, config.data.train)
    own = select_members(SWEEP, config, limit=2)
    one, two = (
        compiler.compile_step(
            compiler.lower_step(config, own[:n], kind, training, jax.devices()[:1], how)
        )
        for n, how in ((1, "none"), (2, "map"))
    )
    assert two.flops == pytest.approx(2 * one.flops, rel=0.05)


@pytest.mark.parametrize(
    ("name", "near"), [("v5e-8", "v6e-8"), ("v5litepod-7", "v5litepod-8"), ("gpus", "gpu")]
)
def test_an_accelerator_that_is_none(name, near):
    with pytest.raises(UserError, match=f"--accelerator {name}: did you mean '{near}'"):
        preflight.target_of(name)


@pytest.mark.parametrize(
    "text", ["[1, 2]", "v5e: 3", "v5e: {demand: much}", "v5e: {}", "v5e: {a: -1}"]
)
def test_prices_that_are_none(text, tmp_path):
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(UserError, match=r"--prices .*p\.yaml: "):
        preflight.prices(tmp_path / "p.yaml")
    with pytest.raises(UserError, match="No such file"):
        preflight.prices(tmp_path / "none.yaml")


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


def test_the_table_of_slices_is_the_vendor_s():
    """Names, topologies, machines: https://cloud.google.com/tpu/docs/v5e and the table of xpk 1.16,
    where a machine of a slice has four chips.
    """
    found = {
        name: f"{one.topology} {one.hosts} {one.chip.machine} {one.chip.node}"
        for name, one in accelerators.SLICES.items()
    }
    for line in XPK.strip().splitlines():
        name, _, rest = line.partition(" ")
        if name.endswith("e-8") or name == "v5litepod-8":  # one machine, but on Kubernetes
            rest = rest.replace(" 2 ", " 1 ")
        assert found[name] == rest, name
    for name, one in accelerators.SLICES.items():
        assert math.prod(int(n) for n in one.topology.split("x")) == one.chips, name
