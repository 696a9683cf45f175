"""Sheets of queries with the first images of their rankings."""

import numpy as np
import pytest
from PIL import Image, ImageColor

from tests.metrics.recognition_case import make_split
from tests.reporting.reports import SMALL, load_people, write
from tinyjax.data.records import RetrievalProtocol, Trial
from tinyjax.errors import UserError
from tinyjax.metrics import retrieval
from tinyjax.reporting import galleries, rank_lists, tables
from tinyjax.reporting.pictures import LINE_HEIGHT
from tinyjax.tasks import get_task

GREEN, ORANGE = (ImageColor.getrgb(c) for c in (rank_lists.MATCH_COLOR, rank_lists.MISTAKE_COLOR))


def angles(degrees):
    radians = np.radians(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], 1)


def make_case(labels, queries, cameras=None, **protocol):
    """The first `queries` images search the others."""
    trial = Trial(np.arange(queries), np.arange(queries, len(labels)))
    protocols = {"case": RetrievalProtocol((trial,), **protocol)}
    split = make_split(labels, cameras, **protocols)
    images = np.full((len(labels), 24, 12, 3), 128, np.uint8)
    return split._replace(inputs={**split.inputs, "image": images})


def frames(picture):
    """The meanings of the frames of a query's row, from left to right."""
    pixels = np.asarray(picture)
    y = (
        rank_lists.MARGIN + 2 * LINE_HEIGHT + 20
    )  # below the captions, on the left sides of the frames
    line = [tuple(p) for p in pixels[y].tolist()]
    colors = {GREEN: "match", ORANGE: "mistake", (0, 0, 0): "query"}
    starts = [x for x in range(1, len(line)) if line[x] in colors and line[x - 1] != line[x]]
    return [colors[line[x]] for x in starts[::2]]  # each frame has two sides


def test_a_list_has_frames_by_identity_and_leaves_out_skipped_pairs():
    labels, cameras = [0, 0, 1, 0, 2], [3, 2, 1, 1, 1]
    split = make_case(labels, 1, cameras, skipped_cameras=frozenset({(3, 2)}))
    lists = retrieval.first_lists(angles([0, 1, 2, 3, 4]), split, split.protocols["case"])
    picture = rank_lists.draw_list(split, lists, 0, "caption")
    assert frames(picture) == ["query", "mistake", "match", "mistake"]


def test_a_list_ends_after_eight_images():
    split = make_case([0] + [1] * 9 + [0], 1)
    lists = retrieval.first_lists(angles(np.arange(11)), split, split.protocols["case"])
    picture = rank_lists.draw_list(split, lists, 0, "caption")
    assert frames(picture) == ["query"] + ["mistake"] * 8


def test_the_worst_queries_come_first():
    """The highest rank, then the lowest precision, then the first query; no match: left out."""
    lists = {
        "rank": np.array([1, 5, -1, 5, retrieval.NEVER, 5, 1], np.int32),
        "average_precision": np.array([0.9, 0.3, np.nan, 0.2, 0, 0.3, 1]),
    }
    assert rank_lists.worst_queries(lists).tolist() == [4, 3, 1, 5, 0, 6]


def test_captions(monkeypatch, tmp_path):
    captions = []
    monkeypatch.setattr(
        rank_lists,
        "add_caption",
        lambda picture, *lines, **_: captions.append(lines[0]) or picture,
    )
    # queries 0, 1, 2; 2 has no match; gallery 3 to 6
    split = make_case([0, 1, 5, 1, 1, 0, 2], 3)
    embedding = angles([0, 1, 2, 3, 4, 5, 6])
    rank_lists.save_worst(split, embedding, tmp_path / "a.png")
    assert [text for text in captions if ".png" in text] == [
        "0, first match at rank 3, AP 0.333: 0.png",
        "1, first match at rank 1, AP 1.000: 1.png",
    ]
    assert captions[-1].startswith("worst queries of case, trial 1; green: same identity")

    captions.clear()
    by_identity = split.protocols["case"]._replace(identity_ranks=True)
    embedding[1] = np.nan
    rank_lists.save_worst(
        split._replace(protocols={"case": by_identity}), embedding, tmp_path / "a.png"
    )
    assert [text for text in captions if ".png" in text] == [
        "1, embedding is not finite: 1.png",
        "0, first match at identity rank 2, AP 0.333: 0.png",
    ]


def test_a_sheet_has_at_most_twelve_queries(tmp_path):
    heights = []
    for queries in (6, 15):
        path = tmp_path / "samples" / f"{queries}.png"
        split = make_case([0] * (queries + 5), queries)
        rank_lists.save_worst(split, angles(np.arange(queries + 5)), path)
        heights.append(Image.open(path).height - LINE_HEIGHT)  # without the title
    assert heights[1] == 2 * heights[0]  # 6 rows of two queries instead of 3


def test_no_sheet_without_a_match(tmp_path):
    path = tmp_path / "val.png"
    path.write_text("from a previous run")
    rank_lists.save_worst(make_case([0, 1, 2], 1), angles([0, 1, 2]), path)
    assert not path.exists()


@pytest.mark.parametrize(
    ("sizes", "note"),
    [
        (["s-6", "s-1"], "exceeds that of the first by the most"),
        (["s-6"], "highest rank of the first match"),
    ],
)
def test_gallery_of_a_report(tmp_path, sizes, note):
    write(tmp_path, task="reid", sizes=sizes, starts=[""], seeds=1, **SMALL)
    contents = tables.read(tmp_path, get_task)
    made, reason = galleries.make_galleries(contents)
    assert reason == ""
    assert [gallery.suite for gallery in made] == ["val", "shift"]
    assert all(note in gallery.note for gallery in made)
    assert all("Protocol visible_to_infrared, trial 1" in gallery.note for gallery in made)


def test_gallery_checks_the_queries_of_the_evaluation(tmp_path):
    write(tmp_path, task="reid", sizes=["s-6", "s-1"], starts=[""], seeds=1, **SMALL)
    contents = tables.read(tmp_path, get_task)
    members = galleries.select_members(contents)
    lists = [galleries.load_examples(contents, m, "val") for m in members]
    split = load_people("val")
    protocol = "visible_to_infrared"
    assert rank_lists.make_gallery("val", split, protocol, members, lists)
    assert rank_lists.make_gallery("val", split, protocol, members, lists[1:] * 2) is None
    with pytest.raises(UserError, match="the queries of infrared_to_visible are not the evaluated"):
        rank_lists.make_gallery("val", split, "infrared_to_visible", members, lists)
