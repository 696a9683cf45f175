"""Sheets of queries with the first images of their rankings.

Frames and names of matches are green, those of other identities orange.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from tinyjax.data.records import RecognitionSplit, RetrievalProtocol
from tinyjax.errors import UserError
from tinyjax.metrics import retrieval
from tinyjax.reporting.fonts import class_names
from tinyjax.reporting.galleries import Gallery, describe_members
from tinyjax.reporting.grouping import short_backbone
from tinyjax.reporting.pictures import add_caption, enlarge, save, tile
from tinyjax.reporting.plotting import COLORS
from tinyjax.reporting.tables import Member

MAX_QUERIES = 12  # on a sheet
COLUMNS = 2  # of a sheet
GALLERY_QUERIES = 6  # on a page
MATCH_COLOR, MISTAKE_COLOR = COLORS[2], COLORS[1]
FRAME_WIDTH, MAX_SIDE = 4, 240  # pixels; of an enlarged image
MARGIN = 16  # around a query's row, pixels
MAX_NAME_LENGTH, MAX_FILE_LENGTH = 14, 36  # characters
FRAMES_NOTE = "green: same identity, orange: another"


def save_worst(split: RecognitionSplit, embedding: np.ndarray, path: Path) -> None:
    """Write a sheet of the `MAX_QUERIES` worst queries of the first trial of the first protocol.

    Without a query that has a match, an existing file is removed.

    embedding: float [N, D].
    """
    name, protocol = next(iter(split.protocols.items()))
    lists = retrieval.first_lists(embedding, split, protocol)
    worst = worst_queries(lists)[:MAX_QUERIES]
    if not len(worst):
        path.unlink(missing_ok=True)
        return
    pictures = [draw_list(split, lists, k, _describe(lists, k, protocol)) for k in worst]
    title = f"worst queries of {name}, trial 1; {FRAMES_NOTE}"
    save(add_caption(tile(_in_columns(pictures)), title), path)


def make_gallery(
    suite: str,
    split: RecognitionSplit,
    protocol_name: str,
    members: Sequence[Member],
    examples: Sequence[Mapping[str, np.ndarray]],
    max_queries: int = GALLERY_QUERIES,
) -> Gallery | None:
    """A gallery of the worst queries; None without a query to show.

    For two members, these are the queries where the average precision of the second exceeds that of
    the first by the most, in a row each; for one member, those of `worst_queries`.

    examples: of each member, see `retrieval.first_lists`.

    Raises UserError if the queries of the split are not those of the evaluation.
    """
    protocol = split.protocols[protocol_name]
    for lists in examples:
        if not np.array_equal(lists["query"], protocol.trials[0].query):
            raise UserError(
                f"suite {suite!r}: the queries of {protocol_name} are not the evaluated ones; "
                "evaluate it again"
            )
    if len(members) == 2:
        first, second = (lists["average_precision"] for lists in examples)
        order = np.argsort(first - second, kind="stable")  # NaN, without a match, comes last
        worst = order[(first < second)[order]][:max_queries]
    else:
        worst = worst_queries(examples[0])[:max_queries]
    if not len(worst):
        return None
    pictures = []
    for k in worst:
        for member, lists in zip(members, examples, strict=True):
            prefix = f"{short_backbone(member.backbone)}: " if len(members) == 2 else ""
            caption = f"{prefix}{_describe(lists, k, protocol)}"
            pictures.append(draw_list(split, lists, k, caption))
    note = f"{describe_members(members)} Protocol {protocol_name}, trial 1; {FRAMES_NOTE}. " + (
        "Queries where the average precision of the second exceeds that of the first by the most."
        if len(members) == 2
        else "Queries with the highest rank of the first match."
    )
    alt = f"Queries of {suite} and the first images of their rankings"
    return Gallery(suite, tile(_in_columns(pictures)), note, alt)


def worst_queries(lists: Mapping[str, np.ndarray]) -> np.ndarray:
    """The rows with a match, int [n]: the highest rank of the first match first, of equal ranks the
    lowest average precision, of equal ones the first row.
    """
    order = np.lexsort((lists["average_precision"], -lists["rank"]))
    return order[lists["rank"][order] > 0]


def draw_list(
    split: RecognitionSplit, lists: Mapping[str, np.ndarray], row: int, caption: str
) -> Image.Image:
    """A query and the first images of its ranking, side by side below a caption.

    lists: see `retrieval.first_lists`.
    """
    query = int(lists["query"][row])
    panels = [_frame(split, query, "query", "black")]
    for i in lists["gallery"][row]:
        if i >= 0:
            label = split.labels[i]
            color = MATCH_COLOR if label == split.labels[query] else MISTAKE_COLOR
            panels.append(_frame(split, i, _identity(split, label), color))
    file = _keep_end(split.names[query], MAX_FILE_LENGTH)
    name = _identity(split, split.labels[query])
    row_picture = add_caption(tile([panels]), f"{name}, {caption}: {file}")
    return ImageOps.expand(row_picture, MARGIN, "white")


def _in_columns(pictures: Sequence[Image.Image]) -> list[Sequence[Image.Image]]:
    return [pictures[k : k + COLUMNS] for k in range(0, len(pictures), COLUMNS)]


def _describe(lists: Mapping[str, np.ndarray], row: int, protocol: RetrievalProtocol) -> str:
    rank, precision = int(lists["rank"][row]), lists["average_precision"][row]
    if rank == retrieval.NEVER:
        return "embedding is not finite"
    unit = "identity rank" if protocol.identity_ranks else "rank"
    return f"first match at {unit} {rank:,}, AP {precision:.3f}"


def _frame(split: RecognitionSplit, i: int, name: str, color: str) -> Image.Image:
    picture = Image.fromarray(enlarge(split.inputs["image"][i], MAX_SIDE))
    return add_caption(ImageOps.expand(picture, FRAME_WIDTH, color), name, color=color)


def _identity(split: RecognitionSplit, label: int) -> str:
    return _keep_end(class_names(split.classes)[label], MAX_NAME_LENGTH)


def _keep_end(text: str, max_length: int) -> str:
    """A text whose beginning is left out if it is longer: names mostly differ at their end."""
    return text if len(text) <= max_length else f"..{text[2 - max_length :]}"
