"""Figure of a detection split's labels."""

import numpy as np
from PIL import Image

from tests.reporting.detection_case import make_matched_case
from tinyjax.reporting import label_statistics


def test_figure_matches_the_labels():
    split, *_ = make_matched_case(("person", "car", "truck"))
    split.valid[0] = False
    split.ignore[0, 0] = True
    figure = label_statistics._draw(split, (4, 8))
    count, size, crowd, position = figure.axes[:4]
    assert [bar.get_width() for bar in count.patches] == [4, 4, 4]
    assert [line.get_xdata()[0] for line in size.lines] == [4, 8]
    assert size.get_xscale() == "log"
    assert [text.get_text() for text in size.texts] == ["stride 4", "stride 8"]
    height = {round(bar.get_x() + bar.get_width() / 2): bar.get_height() for bar in crowd.patches}
    assert {k: h for k, h in height.items() if h} == {0: 1, 6: 2}
    assert position.images[0].get_array().sum() == 12
    title = figure.get_suptitle()
    assert title == "12 boxes in 3 images of 96 x 64 px; 1 ignored boxes left out"


def test_medians_are_marked():
    split, *_ = make_matched_case()
    side = np.sqrt(np.prod(split.boxes[..., 2:] - split.boxes[..., :2], -1))
    size = label_statistics._draw(split, (4, 8)).axes[1]
    for k, lines in enumerate(c for c in size.collections if len(c.get_segments()) == 1):
        (line,) = lines.get_segments()
        sides = side[split.valid & (split.labels == k)]
        np.testing.assert_allclose(line[:, 0], np.median(sides), rtol=1e-6)
    assert k == 1


def test_draw_writes_the_figure(tmp_path):
    label_statistics.draw(make_matched_case()[0], (4, 8), tmp_path / "figures" / "labels.png")
    assert np.asarray(Image.open(tmp_path / "figures" / "labels.png").convert("L")).min() < 100


def test_no_figure_without_objects(tmp_path):
    split, *_ = make_matched_case()
    split.valid[:] = False
    label_statistics.draw(split, (4, 8), tmp_path / "labels.png")
    assert not (tmp_path / "labels.png").exists()
