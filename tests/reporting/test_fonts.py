"""Names in scripts that a machine has fonts for, and names in scripts that it has not."""

import itertools
import logging

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.figure import Figure
from PIL import Image

from tests.reporting.detection_case import make_case
from tinyjax.api import Classification
from tinyjax.metrics.detection import score
from tinyjax.reporting import (
    detection,
    fonts,
    label_statistics,
    pictures,
    plotting,
    transfer_figures,
)

CHINESE = ("人", "汽车", "自行车")
ARABIC = ("شخص", "سيارة")
EMOJI = ("🚗", "🚶🏽‍♀️")
CACHED = (fonts.families, fonts._best_font, fonts.pillow_font)


@pytest.fixture(autouse=True)
def only_dejavu(monkeypatch, caplog):
    """A machine with one font, in a process that has not warned yet."""
    monkeypatch.setattr(fonts, "FAMILIES", fonts.FAMILIES[:1])
    monkeypatch.setattr(fonts.log, "propagate", True)
    monkeypatch.setattr(fonts, "_replacements", itertools.count())
    monkeypatch.setitem(plotting.STYLE, "font.family", ["DejaVu Sans"])
    monkeypatch.setitem(plotting.STYLE, "savefig.dpi", 40)
    clear_caches()
    yield
    clear_caches()


def clear_caches():
    for function in CACHED:
        function.cache_clear()


@pytest.fixture
def chinese_font(tmp_path, monkeypatch):
    """Install a font whose glyphs of CHINESE are black squares."""
    pen = TTGlyphPen(None)
    for k, corner in enumerate([(100, 0), (100, 800), (900, 800), (900, 0)]):
        (pen.lineTo if k else pen.moveTo)(corner)
    pen.closePath()
    characters = sorted({ord(c) for name in CHINESE for c in name} | {ord(" ")})
    names = {code: f"u{code:X}" for code in characters}
    builder = FontBuilder(1000)
    builder.setupGlyphOrder([".notdef", *names.values()])
    builder.setupCharacterMap(names)
    builder.setupGlyf(dict.fromkeys([".notdef", *names.values()], pen.glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys([".notdef", *names.values()], (1000, 100)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Test Han", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "han.ttf")
    known = [*font_manager.fontManager.ttflist]
    font_manager.fontManager.addfont(tmp_path / "han.ttf")
    monkeypatch.setattr(fonts, "FAMILIES", ("DejaVu Sans", "Test Han"))
    clear_caches()
    monkeypatch.setitem(plotting.STYLE, "font.family", [*fonts.families()])
    yield
    font_manager.fontManager.ttflist = known


def test_latin_and_arabic_names_are_drawn_as_they_are(caplog):
    for names in (("person", "Fußgänger", "человек"), ARABIC):
        assert fonts.class_names(names) == [*names]
        assert [*map(fonts.drawable, names)] == [*names]
    assert not caplog.records


@pytest.mark.parametrize("names", [CHINESE, EMOJI])
def test_without_a_font_there_are_numbers_and_one_message(names, caplog):
    assert fonts.class_names(names) == [f"class {k}" for k in range(len(names))]
    assert fonts.class_names(("person", *names))[0] == "person"
    texts = [fonts.drawable(f"{name} b.png") for name in names]
    assert all(text.startswith("<") and text.endswith(" b.png") for text in texts)
    assert len({*texts}) == len(names)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "install a font such as Noto Sans CJK" in record.getMessage()


def test_text_is_its_code_points():
    assert fonts.drawable("夜/a 人") == "<591C>/a <4EBA>"
    assert fonts.drawable("😀\ufe0f\u200d\u3000é") == "😀 é"  # no glyphs of their own


def test_installed_font_is_used(chinese_font, caplog):
    assert fonts.class_names(CHINESE) == [*CHINESE]
    blank = Image.new("RGB", (200, 20), "white")
    row = np.asarray(pictures.add_caption(blank, "人"))[pictures.LINE_HEIGHT // 2]
    assert (row == 0).all(-1).sum() >= 15  # the square of the glyph, filled
    assert not caplog.records


def draw_all(classes, folder):
    """Draw the pictures and figures of a run."""
    split, predictions = make_case(classes)
    suites = {"夜": split}
    scores = {"夜": score(predictions, split.truth, {})}
    scores["夜"].update({f"AP/{name}": 0.5 for name in classes})
    detection.write_report(folder, suites, {"夜": predictions}, scores)
    label_statistics.draw(split, (4, 8), folder / "labels.png")
    counts = dict.fromkeys(classes, (3, 6))
    transfer_figures.draw_class_frequency(counts, scores, "AP", folder / "frequency.png")
    pictures.save_samples(split, predictions, folder / "samples.png")
    Classification(tuple(classes), np.ones(len(classes)) / 2).draw(split.inputs["image"][0])


@pytest.mark.filterwarnings("error")  # of matplotlib: a glyph is missing
@pytest.mark.parametrize("classes", [CHINESE, ARABIC, EMOJI])
def test_figures_and_pictures_have_no_missing_glyphs(classes, tmp_path, caplog):
    draw_all(classes, tmp_path)
    assert len(caplog.records) == 1


@pytest.mark.filterwarnings("error")
def test_figures_use_an_installed_font(chinese_font, tmp_path, caplog):
    drawn = []

    def draw(self, *args, **kwargs):
        drawn.extend(text.get_text() for text in self.findobj(lambda a: hasattr(a, "get_text")))
        return savefig(self, *args, **kwargs)

    savefig = Figure.savefig
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", draw)
        draw_all(CHINESE, tmp_path)
    assert any("汽车" in text for text in drawn)
    assert "<591C>" in " ".join(drawn)  # the suite, which this font lacks
