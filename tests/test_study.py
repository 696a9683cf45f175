"""Studies: stages in order, starting weights of earlier stages, and one report."""

from pathlib import Path

import numpy as np
import pytest

from tests.configs import study as tiny_study
from tests.data.layouts import published_sets
from tests.miniatures import prepare_imagenet2012
from tests.tiny_backbones import TINY
from tinyjax import config as configs
from tinyjax import errors, study, tasks
from tinyjax.population.cost_model import cost_model
from tinyjax.reporting import summary, tables
from tinyjax.run import run_folder
from tinyjax.run.csv_files import read_rows

STUDIES = Path(__file__).parents[1] / "configs" / "studies"
ULTRASMALL, REUSE = STUDIES / "ultrasmall.py", STUDIES / "reuse.py"


@pytest.fixture(scope="module")
def folder(noise_images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study") / "run"
    argv = ["--config", f"{tiny_study.__file__}:{noise_images}", "--workdir", str(folder)]
    assert study.main([*argv, "--stage", "before"]) == 0
    assert not (folder / "report.html").exists()
    assert study.main(argv) == 0
    return folder


def test_stages_are_sweeps_and_start_from_each_other_by_seed(folder):
    before, tuned = (read_rows(folder / name / "members.csv") for name in ("before", "tuned"))
    assert [row["seed"] for row in before] == ["0", "1"]
    assert sorted((row["seed"], row["init"]) for row in tuned) == [
        ("0", ""), ("0", str(folder / "before")), ("1", ""), ("1", str(folder / "before")),
    ]  # fmt: skip
    page = (folder / "report.html").read_text()
    assert all(row["member"] in page for row in tuned)
    assert not any(row["member"] in page for row in before)  # only starting weights


def test_finished_study_is_only_reported(folder, noise_images, capsys):
    weights = sorted((folder / "tuned" / "weights").iterdir())
    written = [file.stat().st_mtime_ns for file in weights]
    argv = ["--config", f"{tiny_study.__file__}:{noise_images}", "--workdir", str(folder)]
    assert study.main(argv) == 0
    assert written == [file.stat().st_mtime_ns for file in weights]
    assert capsys.readouterr().out.count("this run is finished") == 2


PROBING_STUDY = """
from tests.configs import study

def get_study(arg, workdir):
    images, folder = arg.split(",")
    probed = study.get_config(images)
    probed.init, probed.freeze = f"{folder}/before", ("backbone",)
    probed.reinit = ("backbone/classifier/.*",)
    seeds = [{"seed": 0}, {"seed": 1}]
    return {"tuned": f"{folder}/tuned", "probed": (probed, seeds, {"rgn": ("--batches", "1")})}
"""


def probing_argv(tmp_path, noise_images, folder):
    (tmp_path / "probing.py").write_text(PROBING_STUDY)
    config = f"{tmp_path}/probing.py:{noise_images},{folder}"
    return ["--config", config, "--workdir", str(tmp_path / "run")]


@pytest.mark.slow
def test_study_uses_finished_runs_and_measures_gradients(folder, noise_images, tmp_path, capsys):
    """A study with the tuned classifiers of the first, and a stage that probes their start."""
    argv = probing_argv(tmp_path, noise_images, folder)
    assert study.main([*argv, "--dry-run"]) == 0
    assert f"run {folder / 'tuned'}\n" in capsys.readouterr().out
    before = (folder / "tuned" / "results.csv").read_bytes()
    assert study.main(argv) == 0
    assert (tmp_path / "run" / "tuned").resolve() == (folder / "tuned").resolve()
    assert (folder / "tuned" / "results.csv").read_bytes() == before

    probed = {row["seed"]: row["rgn"] for row in seeded(tmp_path / "run" / "probed")}
    page = (tmp_path / "run" / "report.html").read_text()
    assert not any(
        row["member"] in page for row in read_rows(tmp_path / "run" / "probed" / "members.csv")
    )
    members = tables.read(tmp_path / "run", tasks.get_task, exclude=("probed",)).members
    assert {member.run for member in members} == {"tuned"}
    for member in members:
        assert member.id in page
        if member.start == "scratch":
            assert np.isnan(member.rgn)
        else:
            assert member.rgn == float(probed[str(member.seed)]) > 0

    measured = (tmp_path / "run" / "probed" / "rgn.csv").stat().st_mtime_ns
    assert study.main(argv) == 0
    assert (tmp_path / "run" / "probed" / "rgn.csv").stat().st_mtime_ns == measured


def seeded(folder):
    """Return the rows of results.csv with the seeds of their members."""
    seeds = {row["member"]: row["seed"] for row in read_rows(folder / "members.csv")}
    return [{**row, "seed": seeds[row["member"]]} for row in read_rows(folder / "results.csv")]


def test_linked_runs_must_be_finished(folder, noise_images, tmp_path, capsys):
    argv = probing_argv(tmp_path, noise_images, tmp_path / "no")
    assert study.main([*argv, "--dry-run"]) == 0
    assert "no/tuned, not finished yet" in capsys.readouterr().out
    assert errors.exit_code(lambda: study.main(argv)) == 2
    assert f"stage tuned: {tmp_path}/no/tuned is not a finished run" in capsys.readouterr().err
    (tmp_path / "run" / "tuned").mkdir(parents=True)
    argv = probing_argv(tmp_path, noise_images, folder)
    assert errors.exit_code(lambda: study.main(argv)) == 2
    assert "exists and is not" in capsys.readouterr().err
    (tmp_path / "run" / "tuned").rmdir()
    (tmp_path / "run" / "tuned").symlink_to(folder / "before")  # of another study
    assert errors.exit_code(lambda: study.main(argv)) == 2
    assert "exists and is not" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_study(arg): return {}", "give get_study two arguments"),
        ("def get_study(arg, workdir): return None", "must return a dict, name -> "),
        ("def get_study(arg, workdir): return {'a': get_config()}", "stage a: give (config, "),
        ("def get_study(arg, workdir): return {'a': (get_config(),)}", "stage a: give (config, "),
        ("def get_study(arg, workdir): return {'a': (get_config(), [], '-x')}", "stage a: give ("),
        ("def get_study(arg, workdir): return {'a': (3, [])}", "stage a: give (config, "),
        (
            "def get_study(arg, workdir): return {'a': (get_config(), [], {'x': ()})}",
            "rgn or average",
        ),
        (
            "def get_study(arg, workdir):\n    config = get_config()\n"
            "    config.data.train.where = {'x': (1,)}\n    return {'a': (config, [])}",
            "where: x = (1,): give a value, or (low, high)",
        ),
    ],
)
def test_invalid_study_is_one_message(text, message, tmp_path, capsys):
    (tmp_path / "wrong.py").write_text(f"from tests.configs.detector import get_config\n\n{text}\n")
    argv = ["--config", str(tmp_path / "wrong.py"), "--workdir", str(tmp_path / "run"), "--dry-run"]
    assert errors.exit_code(lambda: study.main(argv)) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([tiny_study.__file__, "--config.seed=1"], "each stage of a study has its own config"),
        ([tiny_study.__file__, "--stage", "befor"], "did you mean 'before'"),
        ([str(Path(tiny_study.__file__).with_name("detector.py"))], "defines no get_study"),
    ],
)
def test_invalid_options_are_one_message(argv, message, tmp_path, capsys):
    argv = ["--config", *argv, "--workdir", str(tmp_path / "run")]
    assert errors.exit_code(lambda: study.main(argv)) == 2
    assert message in capsys.readouterr().err


def test_studies_build_on_each_other(tmp_path, monkeypatch):
    """Training sets, starting weights and steps of the studies on HIT-UAV and Svanstrom."""
    monkeypatch.chdir(tmp_path)
    runs = Path("runs")
    capacity = study.load_stages(str(STUDIES / "capacity.py"), runs / "capacity")
    assert {name: len(stage.members) for name, stage in capacity.items()} == {
        "caltech101": 18, "all": 36, "night": 36, "low": 36, "slanted": 36,
    }  # fmt: skip
    for name in ("night", "low", "slanted"):  # in-domain is what it trains on
        config = capacity[name].config
        assert config.data.train.where == config.data.suites[config.monitor].where
        assert config.data.suites[name].split == "val"
    inits = {member.point["init"] for member in capacity["all"].members}
    assert inits == {"", "runs/capacity/caltech101"}

    freezing = study.load_stages(str(STUDIES / "freezing.py"), runs / "freezing")
    assert freezing.pop("all") == runs / "capacity" / "all"
    assert {name: len(stage.members) for name, stage in freezing.items()} == {
        "frozen": 18, "neck": 18, "probed": 18, "moved": 36,
    }  # fmt: skip
    steps = {name: stage.config.schedule.steps for name, stage in freezing.items()}
    assert steps["probed"] + steps["moved"] == steps["frozen"] == steps["neck"]
    assert steps["frozen"] == capacity["all"].config.schedule.steps
    assert freezing["moved"].config.init == "runs/freezing/probed"
    assert "rgn" in freezing["probed"].commands

    visible = study.load_stages(str(STUDIES / "visible.py"), runs / "visible")
    assert {name: stage.config.monitor for name, stage in visible.items()} == {
        "ir": "ir", "rgb": "rgb",
    }  # fmt: skip
    rgn = study.load_stages(str(STUDIES / "rgn.py"), runs / "rgn")
    probed = rgn["untrained"]
    assert (probed.config.init, probed.commands) == ("", {"rgn": ()})
    assert rgn["moved"] == runs / "freezing" / "moved"
    for name in ("night", "low", "slanted"):  # probed on the data of the compared detectors
        compared, probed = capacity[name], rgn[f"probed-{name}"]
        assert rgn[name] == runs / "capacity" / name
        assert probed.config.data.to_dict() == compared.config.data.to_dict()
        assert [member.point for member in probed.members] == [m.point for m in compared.members]
        assert (probed.config.freeze, probed.commands) == (("backbone",), {"rgn": ()})


def test_ultrasmall_study(tmp_path):
    """Starting weights and shared classes of the stages, on tiny copies of the data sets."""
    published_sets.llvip(tmp_path)
    published_sets.flir_aligned(tmp_path)
    flir = next(file.parent for file in tmp_path.rglob("align_train.txt"))
    spec = f"{ULTRASMALL}:llvip={tmp_path}/LLVIP,flir={flir}"
    stages = study.load_stages(spec, tmp_path / "run")
    members = {name: len(stage.members) for name, stage in stages.items()}
    assert members == {"imagenet": 39, "coco": 39, "llvip": 117, "flir": 117}
    assert stages["coco"].config.init == str(tmp_path / "run" / "imagenet")
    inits = {member.point["init"] for member in stages["flir"].members}
    assert inits == {"", *(str(tmp_path / "run" / name) for name in ("imagenet", "coco"))}
    for dataset, shared in (("llvip", ("person",)), ("flir", ("person", "bicycle", "car"))):
        config = configs.from_json(configs.to_json(stages[dataset].config))
        task = tasks.get_task(config.task)
        training = task.load(config.data, config.data.train)
        assert training.classes == shared
        assert training.inputs["image"].shape[1:] == (512, 640, 3)
        suites = {
            name: task.load(config.data, suite, training.classes)
            for name, suite in config.data.suites.items()
        }
        assert {*task.classes_present(suites[dataset])} <= {*shared}
        assert task.classes_present(suites["llvip"]) == task.classes_present(
            suites["llvip-infrared"]
        )
        assert "person" in task.classes_present(suites["flir-infrared"])
        gray = next(iter(suites["llvip-infrared"].inputs["image"]))
        assert np.ptp(gray.astype(int), axis=-1).max() == 0  # one channel, repeated
    # The head that is pretrained on COCO is reused, so the shapes must agree.
    assert stages["coco"].config.model.strides == stages["llvip"].config.model.strides
    assert run_folder.member_id(stages["llvip"].members[0].point) == stages["llvip"].members[0].id


def test_reuse_study(tmp_path):
    """Starting weights and frozen parameters of the arms, and the argument capacity."""
    stages = study.load_stages(str(REUSE), tmp_path)
    assert {name: len(stage.members) for name, stage in stages.items()} == {
        "caltech101": 6, "fpn": 24, "nasfpn": 24, "cascade": 24,
    }  # fmt: skip
    classifiers, frozen = str(tmp_path / "caltech101"), ("backbone",)
    for name in ("fpn", "nasfpn", "cascade"):
        points = [member.point for member in stages[name].members]
        assert {(p["init"], p["freeze"], p["model.adapters"]) for p in points} == {
            ("", (), False),
            (classifiers, (), False),
            (classifiers, frozen, False),
            (classifiers, frozen, True),
        }
        assert stages[name].config.schedule.steps == 1200
    pretrained = {
        (m.point["model.backbone"], m.point["seed"]) for m in stages["caltech101"].members
    }
    assert {(p["model.backbone"], p["seed"]) for p in points} == pretrained

    spec = f"{REUSE}:capacity=runs/capacity,decoders=fpn,seeds=1"
    (stage,) = study.load_stages(spec, tmp_path).values()
    assert {m.point["init"] for m in stage.members} == {"", "runs/capacity/caltech101"}
    with pytest.raises(errors.UserError, match="decoders: 'nas-fpn': did you mean 'nasfpn'"):
        study.load_stages(f"{REUSE}:decoders=nas-fpn", tmp_path)


@pytest.mark.slow
def test_trained_share_of_the_reuse_study(tmp_path):
    """With a frozen backbone, 6 to 56 % of the parameters are trained."""
    shares = {"fpn": 0.06, "fpn_wide": 0.13, "nasfpn": 0.15, "nasfpn_dense": 0.49}
    shares |= {"cascade": 0.56, "cascade_separable": 0.20}
    arguments = f"backbones=mobilenetv3/s-1,seeds=1,decoders={'+'.join(shares)}"
    stages = study.load_stages(f"{REUSE}:{arguments}", tmp_path)
    for name, share in shares.items():
        config, members, _ = stages[name]
        trained_share = cost_model(config, tasks.get_task(config.task)).trained_share
        scratch, fine_tuned, frozen, adapters = map(trained_share, members)
        assert scratch == fine_tuned == 1
        assert frozen == pytest.approx(share, abs=0.01)
        assert adapters > frozen


SMALL_REUSE = """
import runpy

def get_study(arg, workdir):
    stages = runpy.run_path({reuse!r})["get_study"](arg, workdir)
    for name, (config, points) in stages.items():
        config.unlock()
        config.crop_size, config.batch = (64, 64), 2
        config.schedule.update({{"steps": 2, "warmup": 1}})
        config.update({{"log_every": 1, "save_every": 2, "eval_every": 2}})
        if name == "caltech101":
            config.data.common = {{"source": {images!r}, "size": (32, 32), "channels": 1}}
            config.data.suites = {{"test": {{"split": "val"}}}}
            config.crop_size = (32, 32)
        else:
            config.data.format = "synthetic"
            config.data.common, config.data.train = {{"size": (64, 64)}}, {{"n": 6}}
            config.data.suites = {{"val": {{"n": 4, "seed": 1}}, "shift": {{"n": 4, "day": 1.0}}}}
            config.data.slices = {{}}
        stages[name] = (config, points)
    return stages
"""


@pytest.mark.slow
def test_reuse_study_in_miniature(noise_images, tmp_path):
    """Stages and the report, on generated images; two decoders."""
    text = SMALL_REUSE.format(reuse=str(REUSE), images=str(noise_images))
    (tmp_path / "small.py").write_text(text)
    spec = f"{tmp_path}/small.py:backbones={TINY},decoders=fpn+cascade,seeds=2"
    folder = tmp_path / "run"
    assert study.main(["--config", spec, "--workdir", str(folder)]) == 0
    for name in ("fpn", "cascade"):
        rows = read_rows(folder / name / "members.csv")
        frozen = [row for row in rows if row["freeze"] != "()"]
        assert (len(rows), len(frozen)) == (8, 4)
        assert all(int(r["trained_parameters"]) < int(r["parameters"]) for r in frozen)
    page = (folder / "report.html").read_text()
    assert "Gain of freezing by class" in page
    contents = tables.read(folder, tasks.get_task)
    gains = summary.summarize(contents).freezing
    assert {(gain.treatment, gain.suite) for gain in gains} == {
        (treatment, suite)
        for treatment in ("freeze ('backbone',)", "freeze ('backbone',), model.adapters True")
        for suite in ("val", "shift")
    }
    assert all(len(gain.pairs) == 4 for gain in gains)


SMALL = """
import runpy

def get_study(arg, workdir):
    stages = runpy.run_path({ultrasmall!r})["get_study"](arg, workdir)
    for name, (config, points) in stages.items():
        config.unlock()
        size = (40, 40) if name == "imagenet" else (64, 64)
        config.data.common = {{**config.data.common.to_dict(), "size": size}}
        config.crop_size, config.batch, config.model.dtype = (32, 32), 2, "float32"
        config.schedule.update({{"steps": 2, "warmup": 1}})
        config.update({{'log_every': 1, 'save_every': 2, 'eval_every': 2}})
    return stages
"""


@pytest.mark.slow
def test_ultrasmall_study_in_miniature(tmp_path):
    """All stages and the report, on tiny copies of the data sets with tiny images."""
    for write in (published_sets.llvip, published_sets.flir_aligned, published_sets.coco2017):
        write(tmp_path)
    (tmp_path / "small.py").write_text(SMALL.format(ultrasmall=str(ULTRASMALL)))
    imagenet = prepare_imagenet2012(tmp_path / "imagenet")
    spec = (
        f"{tmp_path}/small.py:backbones=mobilenetv3/s-6,seeds=2,imagenet={imagenet},"
        f"coco={tmp_path}/coco,llvip={tmp_path}/LLVIP,flir={tmp_path}/align"
    )
    folder = tmp_path / "run"
    assert study.main(["--config", spec, "--workdir", str(folder)]) == 0
    stages = ("imagenet", "coco", "llvip", "flir")
    members = {name: read_rows(folder / name / "members.csv") for name in stages}
    assert {name: len(rows) for name, rows in members.items()} == dict(
        zip(stages, (2, 2, 6, 6), strict=True)
    )
    page = (folder / "report.html").read_text()
    assert "Gain of pretraining" in page
    for name in ("llvip", "flir"):
        assert all(row["member"] in page for row in members[name])
