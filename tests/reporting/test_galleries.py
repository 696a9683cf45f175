"""Galleries of a report: images and detections."""

import json

import pytest

from tests.reporting.reports import CLASSES, IMAGES, SMALL, write
from tinyjax import report
from tinyjax.data.synthetic import dataset
from tinyjax.errors import UserError
from tinyjax.reporting import galleries, tables, writer
from tinyjax.tasks import get_task


def test_gallery_shows_failures_of_the_small_network(tmp_path):
    write(tmp_path, sizes=["s-6", "s-3", "s-1"], seeds=2, **SMALL)
    contents = tables.read(tmp_path, get_task)
    small, large = galleries.select_members(contents)
    assert (small.backbone, large.backbone) == ("mobilenetv3/s-6", "mobilenetv3/s-1")
    assert (small.start, small.seed) == (large.start, large.seed)
    split = dataset.load(size=(96, 128), **IMAGES["val"])
    detections = [galleries.load_examples(contents, m, "val") for m in (small, large)]
    gallery = galleries.make_gallery("val", split, [small, large], detections)
    assert gallery.picture.width > 3 * 2 * 128  # three enlarged images
    assert galleries.make_gallery("val", split, [large, large], [detections[1]] * 2) is None
    fewer = [{**arrays, "wrong": arrays["wrong"][:3]} for arrays in detections]
    with pytest.raises(UserError, match="has 24 images, but 3 were evaluated"):
        galleries.make_gallery("val", split, [small, large], fewer)


def test_page_explains_missing_images_without_the_data(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "FIGURES", ())
    (id,) = write(tmp_path, sizes=["s-6"], starts=[""], seeds=1, **SMALL)
    config = json.loads((tmp_path / "config.json").read_text())
    config["data"].update(format="coco", common={"source": str(tmp_path / "gone.zip")})
    config["data"]["suites"] = {name: {"split": name} for name in IMAGES}
    (tmp_path / "config.json").write_text(json.dumps(config))
    evaluation = {"command": "python -m tinyjax.evaluate", "config": config}
    (tmp_path / "evaluations" / "last.json").write_text(json.dumps(evaluation))
    assert json.loads((tmp_path / "weights" / f"{id}.json").read_text())["classes"] == [*CLASSES]
    report.main([str(tmp_path)])
    html = (tmp_path / "report.html").read_text()
    assert "No images are shown: " in html
    assert "gone.zip" in html
    assert not [*(tmp_path / "figures" / "report").iterdir()]
