"""Report of a single run of visible-infrared recognition, and the page of reports."""

import math
import re

import numpy as np
import pytest

from tests.metrics.recognition_case import make_split
from tests.reporting.reports import PEOPLE, PERSON, SMALL, load_people, write
from tinyjax import report
from tinyjax.config import recognizer
from tinyjax.data.records import RetrievalProtocol, Trial
from tinyjax.errors import UserError
from tinyjax.metrics import modality_gap, retrieval
from tinyjax.metrics.retrieval import NEVER, ProtocolResult, QueryScores
from tinyjax.reporting import findings, heatmaps, page, plotting, recognition, summary, tables
from tinyjax.run.csv_files import read_rows
from tinyjax.tasks import get_task, reid
from tinyjax.tasks.suites import load_suite


@pytest.fixture
def low_resolution(monkeypatch):
    monkeypatch.setitem(plotting.STYLE, "savefig.dpi", 40)


def make_case(identities=4, images=3, name="to_infrared"):
    """Visible images search infrared ones in two trials; the last identity has no infrared one."""
    labels = np.repeat(np.arange(identities), 2 * images)
    modality = np.tile(np.repeat([0, 1], images), identities)
    modality[labels == identities - 1] = 0
    query, gallery = (np.flatnonzero(modality == m) for m in (0, 1))
    trials = Trial(query, gallery), Trial(query, gallery[::2])
    split = make_split(labels, modality=modality, **{name: RetrievalProtocol(trials)})
    embedding = np.random.default_rng(0).normal(size=(len(labels), 4)).astype(np.float32)
    return split, embedding + np.eye(identities)[labels][:, :4].astype(np.float32)


@pytest.mark.filterwarnings("error")
def test_report_of_two_suites(tmp_path, low_resolution):
    cases = {"val": make_case(), "a_$_name": make_case(name="_hidden")}
    suites = {name: split for name, (split, _) in cases.items()}
    embeddings = {name: embedding for name, (_, embedding) in cases.items()}
    recognition.write_report(tmp_path, suites, embeddings)
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        "cmc.png", "modality_gap.png",
    }  # fmt: skip
    rows = read_rows(tmp_path / "retrieval.csv")
    assert [(r["suite"], r["protocol"], r["trial"]) for r in rows] == [
        (suite, protocol, trial)
        for suite, protocol in (("val", "to_infrared"), ("a_$_name", "_hidden"))
        for trial in ("1", "2", "mean")
    ]
    expected = retrieval.score(embeddings["val"], suites["val"])["to_infrared"]
    for row, scores in zip(rows, [*expected.trials, expected.scores], strict=False):
        assert {name: float(row[name]) for name in scores} == pytest.approx(scores)
    assert (rows[0]["queries"], rows[0]["unmatched queries"]) == ("15", "6")

    rows = [r for r in read_rows(tmp_path / "identities.csv") if r["suite"] == "val"]
    assert {row["identity"] for row in rows} == {"0", "1", "2"}  # the last one has no match
    precision = [float(row["mAP"]) for row in rows]
    assert precision == sorted(precision)
    assert {row["queries"] for row in rows} == {"6"}  # 3 in each trial
    assert np.mean(precision) == pytest.approx(expected.scores["mAP"])


def test_rows_of_identities():
    """Queries of two trials; one without a match is left out; a rank may be infinite."""

    def queries(labels, matches, rank, precision):
        columns = map(np.array, (labels, matches, rank, precision))
        return QueryScores(*columns, np.zeros(len(labels)))

    first = queries([1, 0, 2, 3], [1, 1, 0, 1], [4, 2, -1, NEVER], [0.25, 0.5, np.nan, 0.0])
    second = queries([1, 0], [1, 1], [2, 6], [0.75, 0.5])
    rows = recognition.identity_rows(ProtocolResult({}, (), (first, second)), ("a", "b", "c", "d"))
    assert rows == [
        {"identity": "d", "queries": 1, "mean_rank": math.inf, "mAP": 0.0},
        {"identity": "a", "queries": 2, "mean_rank": 4.0, "mAP": 0.5},
        {"identity": "b", "queries": 2, "mean_rank": 3.0, "mAP": 0.5},
    ]


def test_cmc_figure():
    split, embedding = make_case()
    results = {"val": retrieval.score(embedding, split)}
    (axes,) = recognition._draw_cmc(results).axes
    ranks, fractions = axes.lines[0].get_xydata().T
    assert ranks.tolist() == [*range(1, 21)]
    scores = results["val"]["to_infrared"].scores
    for k in retrieval.RANKS:
        assert fractions[k - 1] == pytest.approx(scores[f"R{k}"])
    (text,) = axes.get_legend().get_texts()
    assert text.get_text() == f"to_infrared  R1 {scores['R1']:.3f}, mAP {scores['mAP']:.3f}"


def test_modality_gap_figure():
    split, embedding = make_case()
    gap = modality_gap.measure(embedding, split)
    panels = recognition._draw_modality_gap({"val": gap}).axes
    assert [p.get_title() for p in panels] == [
        "val: within visible", "val: within infrared", "val: across modalities",
    ]  # fmt: skip
    texts = [[text.get_text() for text in p.get_legend().get_texts()] for p in panels]
    # 3 identities with 3 images of each modality, one with 6 visible ones
    assert texts[0][:2] == ["positive, 48 pairs", "negative, 162 pairs"]
    assert texts[1][-1] == f"mAP infrared {gap.scores['mAP infrared']:.3f}"
    assert texts[2][2:] == [
        f"mAP visible to infrared {gap.scores['mAP visible to infrared']:.3f}",
        f"mAP infrared to visible {gap.scores['mAP infrared to visible']:.3f}",
        f"probe accuracy {gap.scores['probe accuracy']:.3f} (chance: 0.5)",
    ]
    patch = panels[2].patches[-1]  # the outline of the negative pairs
    counts = gap.distances["across negative"]
    np.testing.assert_allclose(patch.get_data().values, counts / counts.sum())


@pytest.mark.filterwarnings("error")
def test_modality_gap_figure_without_pairs(tmp_path, low_resolution):
    """One image of each identity, all visible: no positive pairs, none of infrared images."""
    gap = modality_gap.measure(np.eye(3), make_split([0, 1, 2]))
    figure = recognition._draw_modality_gap({"val": gap})
    plotting.save(figure, tmp_path / "gap.png")
    texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert texts == ["no positive pairs", "negative, 6 pairs", "mAP visible nan"]


# ---- the page


def read(folder, **options):
    write(folder, task="reid", starts=[""], **SMALL, **options)
    contents = tables.read(folder, get_task)
    return contents, summary.summarize(contents)


def test_page_of_a_single_run(tmp_path):
    write(tmp_path, task="reid", sizes=["s-6"], starts=[""], seeds=1, **SMALL)
    assert report.main([str(tmp_path)]) == 0
    assert {path.stem for path in (tmp_path / "figures" / "report").iterdir()} == {
        "scores", "modality_gap", "domain_probe", "images0", "images1",
    }  # fmt: skip
    html = (tmp_path / "report.html").read_text()
    text = re.sub(r"<pre>.*?</pre>|base64,[^\"]*", "", html, flags=re.DOTALL)
    assert "intervals cover other identities, not other seeds" in text
    assert "On the in-domain suite val, mAP is" in text
    assert "a linear probe tells the modalities apart with accuracy 0.875" in text
    for word in ("AP50", "object", "detection", "confidence", "ECE", "other images", "IoU"):
        assert word not in text, word
    assert html.count(">Modality gap</h2>") == 1


def test_columns_and_findings_of_a_sweep(tmp_path):
    contents, numbers = read(tmp_path, sizes=["s-6", "s-1"], seeds=2)
    columns = {column.title: column for column in page.member_columns(contents, numbers)}
    assert {"in domain", "R1", "mINP", "shifted", "gap"} <= {*columns}
    assert columns["in domain"].help == "in-domain mAP"
    assert columns["mINP"].cells == [0.25] * 4
    assert not {"ECE", "worst slice"} & {*columns}
    sentences = " ".join(findings.make_findings(contents, numbers))
    assert "mAP is 0.750 within visible, 0.500 within infrared, " in sentences
    assert "(means over 4 members)" in sentences
    assert "On other identities and galleries, the score falls by" in sentences


def test_figures_of_a_sweep_name_protocols(tmp_path):
    contents, numbers = read(tmp_path, sizes=["s-6", "s-1"], seeds=1)
    result = heatmaps.draw_slices(contents, numbers)
    assert result.title == "Protocols"
    labels = [text.get_text() for text in result.figure.axes[0].get_xticklabels()]
    assert labels == ["main protocol", "infrared_to_visible"]
    gap = heatmaps.draw_modality_gap(contents, numbers).figure.axes[0]
    assert [text.get_text() for text in gap.get_xticklabels()] == [
        "within visible", "within infrared", "visible to infrared", "infrared to visible",
    ]  # fmt: skip
    assert [text.get_text() for text in gap.texts][:2] == [".750", ".500"]
    probe = heatmaps.draw_domain_probe(contents, numbers).figure.axes[0]
    assert [text.get_text() for text in probe.texts] == [".875"] * 4


def test_other_tasks_have_no_modality_gap(tmp_path):
    write(tmp_path, task="classify", sizes=["s-6", "s-1"], starts=[""], seeds=1, **SMALL)
    contents = tables.read(tmp_path, get_task)
    numbers = summary.summarize(contents)
    assert heatmaps.draw_modality_gap(contents, numbers) is None
    assert heatmaps.draw_domain_probe(contents, numbers) is None
    assert findings.describe_modality_gap(contents, numbers) is None


# ---- evaluation


def test_evaluation_keeps_the_rank_lists_of_the_main_protocol():
    split, config = load_people("val"), recognizer()
    config.score.protocol = "infrared_to_visible"
    embedding = np.eye(len(split.classes))[split.labels]
    (result,) = reid.evaluate_slices([{"embedding": embedding}], split, config, {}, np.zeros(0))
    trial = split.protocols["infrared_to_visible"].trials[0]
    np.testing.assert_array_equal(result.examples["query"], trial.query)
    assert {*result.scores} == {"", "visible_to_infrared"}
    assert reid.TASK.metrics(config)["mAP"] == "mAP (infrared_to_visible)"
    assert reid.TASK.metrics(recognizer())["mAP"] == "mAP"


def test_evaluation_checks_the_channels_of_images_alone():
    data = recognizer().data
    data.format, data.suites = "synthetic", {"val": PEOPLE["val"]}
    data.common = {"size": PERSON}
    shapes = ("image", (*PERSON, 3)), ("modality", ())
    assert len(load_suite("reid", data, "val", (), shapes).names) == 3 * 6
    with pytest.raises(UserError, match="images with 3 channels, but the network reads 1"):
        load_suite("reid", data, "val", (), (("image", (*PERSON, 1)),))
