"""A report: its figures, and the page that holds them."""

from pathlib import Path

from matplotlib import rc_context
from PIL import Image

from tinyjax import runfolder
from tinyjax.figures import STYLE
from tinyjax.robust import curves, heat
from tinyjax.robust.findings import findings
from tinyjax.robust.gallery import galleries
from tinyjax.robust.kinds import kinds
from tinyjax.robust.means import means
from tinyjax.robust.page import Picture, html
from tinyjax.robust.ranks import correlations
from tinyjax.robust.summary import Summary, summarise
from tinyjax.robust.tables import Tables

# In the order of the page. Each gives None where it has nothing to show.
FIGURES = (
    curves.scores,
    kinds,
    curves.by_size,
    curves.shift,
    curves.gains,
    curves.gradients,
    correlations,
    heat.matrix,
    heat.slices,
    heat.corruptions,
    heat.classes_and_sizes,
    heat.calibration,
    curves.learning,
)


def write(tables: Tables) -> Path:
    """Write report.html, report.csv and figures/report/*.png into the folder; returns the page's
    path.
    """
    summary = summarise(tables)
    rows = means(tables)
    runfolder.write_rows(tables.folder / "report.csv", rows, rows[0])
    pictures, notes = _pictures(tables, summary, tables.folder / "figures" / "report")
    page = html(tables, summary, findings(tables, summary), pictures, notes)
    with runfolder.atomic(tables.folder / "report.html") as path:
        path.write_text(page, encoding="utf-8")
    return tables.folder / "report.html"


def _pictures(tables: Tables, summary: Summary, folder: Path) -> tuple[list[Picture], list[str]]:
    """The figures and galleries, written to `folder`, which holds no others; lines on what there
    is not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    found = []
    with rc_context(STYLE):
        for figure in FIGURES:
            if shown := figure(tables, summary):
                file = folder / f"{shown.name}.png"
                shown.figure.savefig(file)
                with Image.open(file) as opened:
                    width = opened.width
                name, title, _, alt, note = shown
                found.append(Picture(name, title, file, width, alt, note))
    images, reason = galleries(tables)
    for k, (suite, picture, note) in enumerate(images):
        file = folder / f"images{k}.png"
        picture.save(file)
        alt = f"Images of {suite}: truth, and what was found"
        found.append(
            Picture(f"images{k}", "Images", file, 2 * picture.width, alt, f"{suite}: {note}")
        )
    return found, [reason] if reason else []
