"""The study of visible-infrared recognition: its stages, and all of it in miniature."""

from pathlib import Path

import pytest

from tests.data.layouts import recognition_sets
from tests.miniatures import write_noise_images
from tinyjax import study, tasks
from tinyjax.reporting import summary, tables
from tinyjax.run.csv_files import read_rows

TOPLIGHT = Path(__file__).parents[1] / "configs" / "studies" / "toplight.py"


def test_stages_of_the_toplight_study(tmp_path):
    """The rows of TOPLight's Tables 3 and 5; real data instead of synthetic people."""
    stages = study.load_stages(f"{TOPLIGHT}:seeds=2", tmp_path)
    assert {name: len(stage.members) for name, stage in stages.items()} == {
        "classifier": 2, "generic": 2, "task": 2, "consistent": 2, "domain": 2, "table3": 20,
        "table5": 10, "ladder": 16, "capacity": 32,
    }  # fmt: skip
    switches = {}
    for name in ("generic", "task", "consistent", "domain", "ladder"):
        config = stages[name].config
        switches[name] = (config.augment.jpeg > 0, config.loss.consistency, config.loss.domain)
        assert config.model.path_blocks == 4
        assert stages[name].commands == {"average": ("--path-blocks", "1")}
        assert config.init == ("" if name == "ladder" else str(tmp_path / "classifier"))
    assert switches == {
        "generic": (False, 0, 0), "task": (True, 0, 0), "consistent": (True, 1, 0),
        "domain": (True, 1, 0.1), "ladder": (True, 1, 0.1),
    }  # fmt: skip
    rows = [member.point for member in stages["table3"].members if member.point["seed"] == 0]
    starts = [Path(row["init"]).relative_to(tmp_path).parts[0] for row in rows]
    assert starts == ["classifier", "generic", "task", "consistent", *["domain"] * 5, "classifier"]
    assert [row["fdr.block"] > 0 for row in rows] == [False] * 5 + [True] * 4 + [False]
    assert [row["model.path_blocks"] for row in rows] == [1] * 9 + [0]

    spec = f"{TOPLIGHT}:classes=mini,source=RegDB,format=regdb,height=288,width=144,fdr=5"
    stages = study.load_stages(spec, tmp_path)
    for name, source in (("classifier", "mini"), ("domain", "mini"), ("table3", "RegDB")):
        config = stages[name].config
        assert (config.data.common.source, config.crop_size) == (source, (288, 144))
    optimizers = [stages[name].config.optimizer for name in ("table3", "capacity")]
    assert [(optimizer.name, optimizer.backbone_lr_scale) for optimizer in optimizers] == [
        ("sgd", 0.1), ("sgd", 1.0),
    ]  # fmt: skip


SMALL_TOPLIGHT = """
import runpy

def get_study(arg, workdir):
    stages = runpy.run_path({toplight!r})["get_study"](arg, workdir)
    for config, *_ in stages.values():
        if config.task == "reid" and config.data.format == "synthetic":
            config.data.suites = {{"val": {{"n": 20, "split": "test", "per_camera": (1, 1)}}}}
        elif config.task == "reid":  # a miniature has few identities
            config.batch, config.sampler.identities = 8, 2
    config, points, *_ = stages["table3"]
    stages["table3"] = config, [p for p in points if not p["fdr.block"] or p["fdr.upsample"]]
    config, points = stages["table5"]
    stages["table5"] = config, [p for p in points if p["fdr.attention"] == "se"]
    return stages
"""


def run_miniature(tmp_path, seeds, **arguments):
    """Run all stages with two of seven forms of FDR, two steps each. Returns the folder."""
    (tmp_path / "small.py").write_text(SMALL_TOPLIGHT.format(toplight=str(TOPLIGHT)))
    backbone, folder = "resnet/18@w0.125d0.25", tmp_path / "run"
    arguments = {
        "backbone": backbone, "backbones": backbone, "seeds": seeds, "pretraining": 2,
        "retraining": 2, "steps": 2, **arguments,
    }  # fmt: skip
    text = ",".join(f"{name}={value}" for name, value in arguments.items())
    assert study.main(["--config", f"{tmp_path}/small.py:{text}", "--workdir", str(folder)]) == 0
    for name in ("generic", "task", "consistent", "domain", "ladder"):
        assert len(read_rows(folder / name / "averages" / "results.csv")) == seeds
    return folder


@pytest.mark.slow
def test_toplight_study_in_miniature(tmp_path):
    """All stages, their averages and the report, on synthetic people."""
    folder = run_miniature(tmp_path, 2, people=4, identities=12)
    rows = read_rows(folder / "table3" / "members.csv")
    assert [row["fdr.block"] for row in rows].count("3") == 2
    assert len({row["init"] for row in rows}) == 5
    contents = tables.read(folder, tasks.get_task)
    assert {member.run for member in contents.members} == {"table3", "table5", "capacity"}
    gains = summary.summarize(contents).gains
    assert {(gain.start, gain.suite) for gain in gains} == {("ladder/averages/paths-1", "val")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "protocols"), [("regdb", {"images": 8}, 2), ("sysu", {}, 4)]
)
def test_toplight_study_on_real_layouts(tmp_path, name, options, protocols):
    """The command of docs/recognition.md, on miniatures of the sets and small images."""
    getattr(recognition_sets, name)(tmp_path / "people", **options)
    write_noise_images(tmp_path / "mini", 34, splits=("train", "test"))
    folder = run_miniature(
        tmp_path, 1, classes=tmp_path / "mini", source=tmp_path / "people", format=name,
        height=32, width=16, fdr=5, horizontal=4, vertical=2,
    )  # fmt: skip
    for stage, rows in (("table3", 7), ("table5", 1), ("capacity", 2)):
        scores = read_rows(folder / stage / "evaluations" / "last.csv")
        assert len(scores) == protocols * rows
        assert all(0 <= float(row["mAP"]) <= 1 for row in scores)
