"""Networks of recognition and pretraining by `tinyjax.load`, and the command predict --query."""

import json

import numpy as np
import pytest
from PIL import Image

import tinyjax
from tests.recognition.recognition_runs import (
    INPUTS,
    people,
    recognition_config,
    write_pretraining_run,
    write_recognition_run,
)
from tests.untrained import write_untrained_run
from tinyjax import predict
from tinyjax.core import Variables
from tinyjax.data.modality import MODALITIES
from tinyjax.errors import UserError
from tinyjax.inference.recognizer import Matches
from tinyjax.models import flops
from tinyjax.run import run_folder
from tinyjax.run.csv_files import read_rows
from tinyjax.run.weights import read_weights
from tinyjax.tasks import get_task


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_recognition_run(tmp_path_factory.mktemp("recognizer") / "run", path_blocks=4)


@pytest.fixture(scope="module")
def model(run):
    return tinyjax.load(run)


@pytest.fixture(scope="module")
def images():
    return people()


# ---- embeddings


def test_embeddings_are_those_of_the_network_with_two_paths(run, model, images):
    trees, metadata = read_weights(run / "weights" / run_folder.member_id({}))
    config = recognition_config(4)
    functions = get_task("reid").model_functions(config, metadata["classes"], INPUTS)
    for (name, modality), pixels in zip(MODALITIES.items(), images, strict=True):
        inputs = {"image": pixels, "modality": np.full(len(pixels), modality, np.uint8)}
        expected = functions.predict(Variables(**trees), inputs)["embedding"]
        embedding = model.embed(pixels, name)
        assert embedding.dtype == np.float32
        np.testing.assert_allclose(embedding, expected, atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, atol=1e-6)
    assert np.abs(model.embed(images[1], "visible") - embedding).max() > 0.01


def test_only_one_path_is_computed_and_both_modalities_share_a_program(run, images, compiled):
    model = tinyjax.load(run)
    compiled.clear()
    for name, pixels in zip(MODALITIES, images, strict=True):
        model.embed(pixels, name)
    assert len(compiled) == 1
    sizes = {
        name: flops.count_parameters(variables.params)
        for name, (_, variables) in model.predict_functions.items()
    }
    single = get_task("reid").model_functions(recognition_config(0), model.classes, INPUTS).init(0)
    assert {*sizes.values()} == {flops.count_parameters(single.params)}


def test_one_image_and_files_and_other_sizes(model, images, tmp_path):
    visible, _ = images
    expected = model.embed(visible, "visible")
    assert model.embed(visible[0], "visible").shape == expected.shape[1:]
    Image.fromarray(visible[1]).save(tmp_path / "1.png")
    mixed = [tmp_path / "1.png", Image.fromarray(visible[1]), visible[1]]
    for row in model.embed(mixed, "visible"):
        np.testing.assert_allclose(row, expected[1], atol=1e-5)
    assert model.embed(visible.repeat(2, 1), "visible").shape == expected.shape


def test_infrared_images_are_read_as_gray(model, images):
    color = images[0][0]
    gray = np.asarray(Image.fromarray(color).convert("L"))
    np.testing.assert_array_equal(model.embed(color, "infrared"), model.embed(gray, "infrared"))


# ---- matches


def test_matches_by_hand(model):
    gallery = np.array([[0, 2], [1, 1], [3, 0], [0, 1], [np.nan, 0]], np.float32)
    matches = model.match(np.array([0, 5.0]), gallery, top=10)
    assert matches.indices.tolist() == [0, 3, 1, 2, 4]  # equal rows keep the gallery's order
    np.testing.assert_allclose(matches.similarities[:4], [1, 1, 0.5**0.5, 0], rtol=1e-6)
    first, second = model.match(np.array([[0, 1], [-1, 0.0]]), gallery[:3], top=2)
    assert (first.indices.tolist(), second.indices.tolist()) == ([0, 1], [0, 1])
    np.testing.assert_allclose(second.similarities, [0, -(0.5**0.5)], atol=1e-7)
    assert (first.indices.dtype, first.similarities.dtype) == (np.int32, np.float32)


def test_images_match_as_their_embeddings_do(model, images):
    visible, infrared = images
    gallery = model.embed(visible, "visible")
    expected = model.match(model.embed(infrared, "infrared"), gallery)
    for a, b in zip(model.match(infrared, visible), expected, strict=True):
        np.testing.assert_array_equal(a.indices, b.indices)
        np.testing.assert_allclose(a.similarities, b.similarities, atol=1e-6)
    same = model.match(visible[2], visible, "visible", "visible", top=1)
    assert same.indices.tolist() == [2]
    assert same.similarities[0] == pytest.approx(1, abs=1e-5)
    assert model.match([], gallery) == []


def test_picture_has_the_query_left_and_the_matches_right():
    colors = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    images = [np.broadcast_to(color, (32, 16, 3)) for color in colors]
    matches = Matches(np.array([2, 0]), np.array([0.9, 0.5], np.float32))
    picture = np.asarray(matches.draw(images[1], images))
    middle = picture[picture.shape[0] // 2]
    shown = [*dict.fromkeys(map(tuple, middle.tolist()))]
    assert [color for color in shown if color != (255, 255, 255)] == [
        (0, 255, 0), (0, 0, 255), (255, 0, 0),
    ]  # fmt: skip
    with pytest.raises(UserError, match="gallery_images: 2 images, without 2"):
        matches.draw(images[1], images[:2])


def test_mistakes(model, images):
    visible, infrared = images
    gallery = np.eye(3, dtype=np.float32)
    for message, call in {
        "modality = 'infared': did you mean 'infrared'": lambda: model.embed(visible, "infared"),
        "query_modality = 'ir'": lambda: model.match(infrared, visible, "ir"),
        "gallery_modality = 'rgb'": lambda: model.match(infrared, visible, gallery_modality="rgb"),
        "gallery: no images; give one or more": lambda: model.match(infrared, []),
        "top = 0: give 1 or more": lambda: model.match(infrared, visible, top=0),
        "length 2, the gallery of length 3": lambda: model.match(gallery[:, :2], gallery),
        "image of float32: give uint8": lambda: model.embed(visible / np.float32(255), "visible"),
        "no images; give one or more": lambda: model.embed([], "visible"),
        r"use model\.embed\(images": lambda: model(visible[0]),
    }.items():
        with pytest.raises(UserError, match=message):
            call()


def test_pretraining_run_is_a_classifier(tmp_path):
    classifier = tinyjax.load(write_pretraining_run(tmp_path / "run"))
    classified = classifier(people(1)[0][0])
    assert {*classified.names} == {"ant", "bee", "cat"}
    assert classified.scores.sum() == pytest.approx(1, abs=1e-5)


# ---- the command


@pytest.fixture
def folders(images, tmp_path):
    for folder, pixels in zip(("day", "night"), images, strict=True):
        (tmp_path / folder / "more").mkdir(parents=True)
        for k, image in enumerate(pixels):
            name = f"more/{k}.png" if k == 0 else f"{k}.png"
            Image.fromarray(image).save(tmp_path / folder / name)
    return tmp_path


def command(run, folders, *flags):
    inputs = [str(folders / "day" / "**" / "*.png"), "--query", str(folders / "night")]
    output = str(folders / "out")
    return ["--workdir", str(run), "--input", *inputs, "--output", output, *flags]


def test_command_agrees_with_the_api(run, model, images, folders, capsys):
    assert predict.main(command(run, folders, "--top", "2")) == 0
    rows = json.loads((folders / "out" / "ranks.json").read_text())
    names = sorted(p.name for p in (folders / "night").glob("*.png"))
    assert [(row["query"], row["rank"]) for row in rows] == [(n, k) for n in names for k in (1, 2)]
    gallery = {"more/0.png": 0} | {f"{k}.png": k for k in range(1, len(images[0]))}
    for name in names:
        query = images[1][int(name.removesuffix(".png"))]
        expected = model.match(query, images[0], top=2)
        ranked = [row for row in rows if row["query"] == name]
        assert [gallery[row["gallery"]] for row in ranked] == expected.indices.tolist()
        similarities = [row["similarity"] for row in ranked]
        np.testing.assert_allclose(similarities, expected.similarities, atol=1e-5)
    lines = read_rows(folders / "out" / "ranks.csv")
    assert lines == [{key: str(value) for key, value in row.items()} for row in rows]
    assert {p.name for p in (folders / "out").glob("*.png")} == {f"{name}.png" for name in names}
    assert f"{len(names)} queries ranked in a gallery of" in capsys.readouterr().out


def test_command_skips_broken_files_and_writes_no_pictures(run, folders, capsys):
    (folders / "night" / "1.png").write_bytes(b"broken")
    assert predict.main(command(run, folders, "--no-pictures", "--top=1")) == 2
    assert {p.name for p in (folders / "out").iterdir()} == {"ranks.csv", "ranks.json"}
    assert "1.png" not in {row["query"] for row in read_rows(folders / "out" / "ranks.csv")}
    assert "not read: 1 of" in capsys.readouterr().out


def test_mistakes_on_the_command_line(run, folders, tmp_path):
    argv = command(run, folders)
    (tmp_path / "broken.png").write_bytes(b"broken")
    unreadable = [*argv, "--query", str(tmp_path / "broken.png")]
    without_query = [*argv[: argv.index("--query")], *argv[argv.index("--output") :]]
    for message, arguments in {
        "--query: give the images to find in --input": without_query,
        "--threshold: not an option of recognition": [*argv, "--threshold=0.5"],
        "--class: not an option of recognition": [*argv, "--class=person"],
        "--top 0: give 1 or more": [*argv, "--top=0"],
        "--query: none of 1 files could be read": unreadable,
    }.items():
        with pytest.raises(UserError, match=message):
            predict.main(arguments)
    detector = write_untrained_run(tmp_path / "detector")
    with pytest.raises(UserError, match="--query: not an option of detection or classification"):
        predict.main(command(detector, folders))
    assert not (folders / "out").exists()
