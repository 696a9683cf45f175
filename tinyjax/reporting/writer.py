"""Write a report: its figures, its table, and the page."""

from pathlib import Path

from matplotlib import rc_context
from PIL import Image

from tinyjax.reporting import curves, heatmaps
from tinyjax.reporting.correlation_plot import draw_correlations
from tinyjax.reporting.findings import make_findings
from tinyjax.reporting.freezing_plot import draw_freezing, draw_freezing_by_class
from tinyjax.reporting.galleries import make_galleries
from tinyjax.reporting.group_plot import draw_variants
from tinyjax.reporting.means_table import network_rows
from tinyjax.reporting.page import PIXEL_RATIO, PageFigure, render
from tinyjax.reporting.plotting import STYLE
from tinyjax.reporting.summary import Summary, summarize
from tinyjax.reporting.tables import Tables
from tinyjax.run.csv_files import write_rows
from tinyjax.run.files import atomic

# In the order of the page. Each returns None if it has nothing to show.
FIGURES = (
    curves.draw_scores,
    draw_variants,
    curves.draw_score_by_size,
    curves.draw_shift,
    curves.draw_gains,
    draw_freezing,
    draw_freezing_by_class,
    curves.draw_gradient_norms,
    draw_correlations,
    heatmaps.draw_training_set_matrix,
    heatmaps.draw_modality_gap,
    heatmaps.draw_domain_probe,
    heatmaps.draw_slices,
    heatmaps.draw_corruptions,
    heatmaps.draw_classes_and_sizes,
    heatmaps.draw_calibration,
    curves.draw_learning_curves,
)


def write(tables: Tables) -> Path:
    """Write report.html, report.csv and figures/report/*.png; return the path of the page."""
    summary = summarize(tables)
    rows = network_rows(tables)
    write_rows(tables.folder / "report.csv", rows, rows[0])
    figures, notes = _write_figures(tables, summary, tables.folder / "figures" / "report")
    page = render(tables, summary, make_findings(tables, summary), figures, notes)
    with atomic(tables.folder / "report.html") as path:
        path.write_text(page, encoding="utf-8")
    return tables.folder / "report.html"


def _write_figures(
    tables: Tables, summary: Summary, folder: Path
) -> tuple[list[PageFigure], list[str]]:
    """Write figures and galleries to `folder`, and remove older ones from it.

    Returns the written figures, and notes on galleries that could not be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    figures = []
    with rc_context(STYLE):
        for make_figure in FIGURES:
            if result := make_figure(tables, summary):
                file = folder / f"{result.name}.png"
                result.figure.savefig(file)
                with Image.open(file) as image:
                    width = image.width
                figures.append(
                    PageFigure(result.name, result.title, file, width, result.alt, result.note)
                )
    galleries, reason = make_galleries(tables)
    for k, (suite, picture, note, alt) in enumerate(galleries):
        file = folder / f"images{k}.png"
        picture.save(file)
        width = PIXEL_RATIO * picture.width
        figures.append(PageFigure(f"images{k}", "Images", file, width, alt, f"{suite}: {note}"))
    return figures, [reason] if reason else []
