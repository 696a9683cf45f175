"""A report: its figures, and the page that holds them."""

from pathlib import Path

from matplotlib import rc_context
from PIL import Image

from tinyjax.reporting import curves, heatmaps
from tinyjax.reporting.correlation_plot import correlations
from tinyjax.reporting.figures import STYLE
from tinyjax.reporting.findings import findings
from tinyjax.reporting.galleries import galleries
from tinyjax.reporting.group_plot import kinds
from tinyjax.reporting.means_table import means
from tinyjax.reporting.page import Picture, html
from tinyjax.reporting.summary import Summary, summarize
from tinyjax.reporting.tables import Tables
from tinyjax.run.csv_files import write_rows
from tinyjax.run.files import atomic

# In the order of the page. Each gives None where it has nothing to show.
FIGURES = (
    curves.scores,
    kinds,
    curves.by_size,
    curves.shift,
    curves.gains,
    curves.gradients,
    correlations,
    heatmaps.matrix,
    heatmaps.slices,
    heatmaps.corruptions,
    heatmaps.classes_and_sizes,
    heatmaps.calibration,
    curves.learning,
)


def write(tables: Tables) -> Path:
    """Write report.html, report.csv and figures/report/*.png into the folder; returns the page's
    path.
    """
    summary = summarize(tables)
    rows = means(tables)
    write_rows(tables.folder / "report.csv", rows, rows[0])
    pictures, notes = _pictures(tables, summary, tables.folder / "figures" / "report")
    page = html(tables, summary, findings(tables, summary), pictures, notes)
    with atomic(tables.folder / "report.html") as path:
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
