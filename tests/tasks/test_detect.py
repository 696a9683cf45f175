"""The detector that a config selects, and the protocol of its scores."""

from itertools import permutations

import numpy as np
import pytest

from tests.metrics.handmade import predictions_of
from tinyjax.config import detector, with_fields
from tinyjax.data.records import Objects, build_split
from tinyjax.errors import UserError
from tinyjax.metrics import protocols
from tinyjax.metrics.slices import resample_counts
from tinyjax.reporting import transfer_figures
from tinyjax.tasks import detect
from tinyjax.training.validation import check_config

BOX = (10, 10, 20, 20)


@pytest.mark.parametrize(
    ("name", "other"),
    [*permutations(("point", "retinanet", "faster_rcnn", "cascade_rcnn"), 2)],
)
def test_a_config_cannot_change_its_detector(name, other):
    """Its fields are those of one detector."""
    config = detector(name)
    assert detect.get_detector(config).__name__ == f"tinyjax.detectors.{name}"
    config.model.detector = other
    message = f"model.detector = '{other}': this config has the fields of another detector, not "
    with pytest.raises(UserError, match=message):
        detect.get_detector(config)


@pytest.mark.parametrize(
    ("path", "value", "allowed"),
    [
        ("nms.iou_threshold", 1.5, "0 to 1"),
        ("nms.max_detections", 0, "1 or more"),
        ("proposals.iou_threshold", -0.1, "0 to 1"),
        ("model.neck_width", -1, "0 or more"),
    ],
)
def test_invalid_numbers_of_detectors_are_rejected(path, value, allowed):
    config = with_fields(detector("faster_rcnn"), {path: value})
    config.data.suites = {"val": {"split": "val"}}
    with pytest.raises(UserError, match=f"{path} = {value}: give {allowed}"):
        check_config(config)


def suite(**fields):
    """One image with a person; its truth is that of `truth_of`."""
    objects = Objects(np.array([BOX], float), np.zeros(1, int), np.zeros(1, bool), np.ones(1) * 100)
    info = {"file_name": "a.png", "width": 64, "height": 48, **fields}
    images = np.zeros((1, 48, 64, 1), np.uint8)
    return build_split(
        images, [objects], [info], ("person", "car"), np.ones((1, 2)), np.zeros((1, 2))
    )


def protocol_config(protocol):
    config = detector()
    config.score.protocol = protocol
    return config


# A detection of the absent class, and one with an IoU of 0.6
PREDICTIONS = predictions_of((0, 1, (30, 30, 40, 40), 0.9), (0, 0, (10, 10, 20, 16), 0.8))


@pytest.mark.parametrize(
    ("protocol", "ap"), [("coco", 0.3), ("voc2007", 0.2), ("voc", 0.2), ("lvis", 0.3)]
)
def test_the_config_selects_the_protocol(protocol, ap):
    split = suite(neg_categories=["car"], not_exhaustive_categories=[])
    config = protocol_config(protocol)
    (scores,) = detect.score([PREDICTIONS], split, config)
    # COCO's threshold of 0.60 is reached, Pascal VOC's must be exceeded
    assert (scores["AP"], scores["AP50"]) == pytest.approx((ap, 1))
    (result,) = detect.evaluate_slices([PREDICTIONS], split, config, {}, resample_counts(1, 2))
    assert result.scores[""]["AP"] == pytest.approx(ap)
    assert ("AP fixed" in scores) == (protocol == "lvis")


def test_table_of_scores_without_size_bins():
    (scores,) = detect.score([PREDICTIONS], suite(), protocol_config("voc"))
    lines = detect.score_table({"val": scores}).splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [
        ["val", "all"], ["val", "person"], ["val", "car"]
    ]  # fmt: skip


def test_table_of_lvis_scores():
    split = suite(neg_categories=["car"], not_exhaustive_categories=[])
    (scores,) = detect.score([PREDICTIONS], split, protocol_config("lvis"))
    title, total, *_ = detect.score_table({"val": scores}).splitlines()
    columns = "suite slice AP AP50 AP75 APr APc APf fixed images boxes"
    assert title.replace("AP fixed", "fixed").split() == columns.split()
    assert total.split()[:4] == ["val", "all", "0.300", "1.000"]


def test_table_of_many_classes_has_totals_only():
    (scores,) = detect.score([PREDICTIONS], suite(), protocol_config("voc"))
    scores |= {f"{metric}/class{k}": 0.5 for k in range(100) for metric in ("AP", "AP50")}
    assert len(detect.score_table({"val": scores}).splitlines()) == 2


def test_main_scores_are_those_of_the_protocol():
    assert [*detect.metrics(protocol_config("lvis"))] == [
        "AP50", "AP", "APr", "APc", "APf", "AP fixed"
    ]  # fmt: skip
    assert detect.metrics({})["AP50"] == "AP50 (IoU 0.50)"  # of a run before there were protocols
    for protocol in protocols.PROTOCOLS:
        assert next(iter(detect.metrics(protocol_config(protocol)))) == detect.TASK.monitor


def test_all_figures_of_a_run_name_the_protocol(tmp_path, monkeypatch):
    labels = []
    monkeypatch.setattr(
        transfer_figures, "draw_class_frequency", lambda *args: labels.append(args[2])
    )
    split, config = suite(), protocol_config("voc")
    predictions, counts = {"val": PREDICTIONS}, {"person": (1, 1), "car": (0, 0)}
    scores = {"val": detect.score([PREDICTIONS], split, config)[0]}
    detect.write_report(tmp_path, {"val": split}, predictions, scores, counts, config)
    assert labels == ["VOC AP, area (IoU 0.50:0.95)"]


def test_unknown_protocol_raises():
    config = protocol_config("lvis1")
    config.data.suites = {"val": {"split": "val"}}
    with pytest.raises(UserError, match=r"score.protocol = 'lvis1'.*lvis"):
        check_config(config)


def test_lvis_protocol_needs_federated_labels(tmp_path):
    config = protocol_config("lvis")
    with pytest.raises(UserError, match="no image has neg_category_ids"):
        detect.describe_data(suite(), {"val": suite()}, config, tmp_path)
