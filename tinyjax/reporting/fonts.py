"""Fonts of this machine that draw the names of classes, suites and files in any script."""

from collections.abc import Sequence
from functools import cache
from itertools import count
from unicodedata import category

from matplotlib import get_cachedir
from matplotlib.font_manager import FontProperties, findfont, fontManager
from matplotlib.ft2font import FT2Font
from PIL import ImageFont

from tinyjax.run.logs import log

# Fonts with the characters of many scripts on Linux, macOS and Windows. The first comes with
# matplotlib. Reading all fonts of a machine would take seconds.
FAMILIES = (
    "DejaVu Sans",
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Micro Hei"),
    *("WenQuanYi Zen Hei", "Droid Sans Fallback", "IPAGothic", "NanumGothic", "UnDotum"),
    *("PingFang SC", "Hiragino Sans", "Apple SD Gothic Neo", "Arial Unicode MS"),
    *("Microsoft YaHei", "SimHei", "Yu Gothic", "Malgun Gothic", "Segoe UI", "Nirmala UI"),
    *(f"Noto Sans {script}" for script in ("Arabic", "Hebrew", "Devanagari", "Bengali", "Tamil")),
    *(f"Noto Sans {script}" for script in ("Telugu", "Thai", "Ethiopic", "Symbols2")),
    *("Noto Emoji", "Segoe UI Emoji", "Symbola", "Unifont"),
)
_replacements = count()


@cache
def families() -> tuple[str, ...]:
    """Those of `FAMILIES` that this machine has."""
    installed = {font.name for font in fontManager.ttflist}
    return tuple(name for name in FAMILIES if name in installed)


def class_names(classes: Sequence[str]) -> list[str]:
    """The names to draw: "class 3" for a name that no font has all characters of."""
    return [
        name if drawable(name) == name else f"class {k}"
        for k, name in enumerate(map(_visible, classes))
    ]


def drawable(text: str) -> str:
    """A text whose characters are in one font: others are code points, such as <4EBA>."""
    if text.isascii():
        return text
    text = _visible(text)
    known = _characters(_best_font(text))
    if all(c in known for c in text):
        return text
    if next(_replacements) == 0:  # atomic: threads draw the pictures of predictions
        log.warning(
            "no font of this machine has all characters of some names: pictures and figures show "
            "class numbers or code points instead; install a font such as Noto Sans CJK, then "
            f"delete {get_cachedir()}/fontlist*.json"
        )
    return "".join(c if c in known else f"<{ord(c):X}>" for c in text)


@cache
def pillow_font(text: str, height: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """A font of a height in pixels for a text that `drawable` returned."""
    if text.isascii():
        return ImageFont.load_default(height)
    return ImageFont.truetype(_best_font(text), height)


def _visible(text: str) -> str:
    """A text without characters that have no glyph, such as joiners and variation selectors."""
    text = "".join(" " if c.isspace() else c for c in text)
    return "".join(c for c in text if category(c) != "Cf" and not "\ufe00" <= c <= "\ufe0f")


@cache
def _best_font(text: str) -> str:
    """The file of the font that has the most characters of a text."""
    files = [findfont(FontProperties(family=[name])) for name in families()]
    return max(files, key=lambda file: sum(c in _characters(file) for c in text))


@cache
def _characters(file: str) -> frozenset[str]:
    return frozenset(map(chr, FT2Font(file).get_charmap()))
