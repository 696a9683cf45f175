"""A trained network as a function: what goes in, what comes out, and what is refused."""

import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

import tinyjax
from tests.untrained import CLASSES, CONFIG, untrained
from tinyjax.api import BATCH, Detections
from tinyjax.errors import UserError

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return untrained(tmp_path_factory.mktemp("model") / "run")


@pytest.fixture(scope="module")
def model(folder):
    return tinyjax.load(folder)


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)


def answering(folder, *rows):
    """A model whose network finds `rows` (box, score, label) in every frame, and nothing else."""
    model = tinyjax.load(folder)
    boxes, scores, labels = (np.array(column) for column in zip(*rows, strict=True))

    def predict(_, images):
        one = {"boxes": boxes.astype("f4"), "scores": scores, "labels": labels.astype("i4")}
        return {name: np.repeat(value[None], len(images), 0) for name, value in one.items()}

    model._task = model._task._replace(predict=predict)
    return model


def equal(a, b):
    for name in ("boxes", "scores", "labels"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_boxes_come_back_in_pixels_of_the_image_and_end_at_its_border(folder):
    model = answering(
        folder,
        ((8, 24, 24, 40), 0.9, 0),
        ((56, 20, 70, 44), 0.8, 2),  # beyond the right border, into the letterbox above and below
        ((0, 2, 10, 12), 0.7, 1),  # all of it in the letterbox
        ((1, 30, 4, 35), 0.0, 0),  # an empty slot
    )
    found = model(np.zeros((32, 128), np.uint8), threshold=0)  # halved, and 24 rows above
    np.testing.assert_array_equal(found.boxes, [[16, 0, 48, 32], [112, 0, 128, 32]])
    np.testing.assert_allclose(found.scores, [0.9, 0.8], rtol=1e-6)
    np.testing.assert_array_equal(found.labels, [0, 2])
    assert found.names == ["person", "animal"]
    assert (found.boxes.dtype, found.labels.dtype) == (np.float32, np.int32)


def test_threshold_and_classes_choose(folder, image):
    rows = [((4, 4, 9, 9), 0.5, 0), ((4, 4, 9, 9), 0.25, 1), ((4, 4, 9, 9), 0.2, 0)]
    model = answering(folder, *rows)
    assert model(image).names == ["person"]
    assert model(image, threshold=0.25).names == ["person", "vehicle"]
    assert model(image, 0, classes="vehicle").names == ["vehicle"]
    assert model(image, 0, classes=("animal", "person")).names == ["person", "person"]
    assert model(image, 0, classes=[]).names == []


def test_nothing_found_is_empty_and_converts(model, image):
    found = model(image, threshold=1.0)
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)
    assert found.to_coco(7) == []
    assert found.to_supervision()["xyxy"].shape == (0, 4)
    assert found.to_supervision()["data"]["class_name"].shape == (0,)
    assert found.draw(image).width == 192


def test_conversions_of_one_detection():
    found = Detections(
        np.array([[1, 2, 4, 8]], np.float32), np.array([0.75], np.float32), np.array([1]), CLASSES
    )
    row = {"image_id": 3, "category_id": 2, "bbox": [1, 2, 3, 6], "score": 0.75}
    assert json.loads(json.dumps(found.to_coco(3))) == [row]
    # What supervision's own constructor asks for, as checked against it when this was written.
    arguments = found.to_supervision()
    assert arguments.keys() == {"xyxy", "confidence", "class_id", "data"}
    assert arguments["xyxy"].tolist() == [[1, 2, 4, 8]]
    assert arguments["confidence"].tolist() == [0.75]
    assert arguments["class_id"].tolist() == [1]
    assert arguments["class_id"].dtype == int
    assert arguments["data"]["class_name"].tolist() == ["vehicle"]


def test_one_image_or_several_in_every_form(model, image):
    one = model(image, 0)
    assert len(one) > 0
    equal(model(image[..., None], 0), one)
    for several in ([image] * 3, (image, image), np.stack([image] * 3)[..., None]):
        answers = model(several, 0)
        assert len(answers) == len(several)
        for each in answers:
            np.testing.assert_allclose(each.scores, one.scores, rtol=1e-5)
    assert model([]) == []


def test_images_of_mixed_sizes_do_not_depend_on_their_company(model, image):
    wide = np.random.default_rng(1).integers(0, 256, (30, 100, 3), np.uint8)
    first, second, third = model([wide, image, wide], 0)
    equal(first, third)
    np.testing.assert_allclose(second.scores, model(image, 0).scores, rtol=1e-5)
    assert (first.boxes >= 0).all()
    assert (first.boxes <= [100, 30, 100, 30]).all()


def test_compiled_for_one_and_for_several_whatever_their_sizes(folder, image, compiled):
    model = tinyjax.load(folder)
    compiled.clear()
    model(image)
    model([image] * 2)
    assert len(compiled) == 2
    model(image[:20, :50])
    for n in (1, 3, BATCH, BATCH + 1, 2 * BATCH + 3):
        model([image[: 30 + n]] * n, threshold=0.1, classes="person")
    assert len(compiled) == 2


def test_color_becomes_gray_by_luminance_and_gray_becomes_color(model, tmp_path, image):
    color = np.random.default_rng(2).integers(0, 256, (64, 64, 3), np.uint8)
    gray = np.asarray(Image.fromarray(color).convert("L"))
    equal(model(color, 0), model(gray, 0))
    np.testing.assert_array_equal(model.fit(color).pixels[..., 0], gray)
    three = tinyjax.load(untrained(tmp_path / "color", channels=3))
    np.testing.assert_array_equal(three.fit(image).pixels, np.stack([image] * 3, -1))
    np.testing.assert_array_equal(three.fit(color).pixels, color)
    assert three.frame == (64, 64, 3)


def test_sixteen_bits_and_the_fit_follow_the_config(tmp_path, image):
    model = tinyjax.load(untrained(tmp_path / "a", range16=("range", 0, 65535), fit="resize"))
    deep = image.astype(np.uint16) * 257
    for order in ("<u2", ">u2"):
        np.testing.assert_array_equal(model.fit(deep.astype(order)).pixels[..., 0], image)
    stretched = model.fit(image[:32])
    np.testing.assert_array_equal(stretched.scale, [1, 2])
    np.testing.assert_array_equal(stretched.offset, [0, 0])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((8, 8)), r"float64.*uint8.*\(255 \* image\)"),
        (np.zeros((8, 8), int), "int64: give uint8, or uint16"),
        (np.zeros((8, 8), bool), "bool"),
        (np.zeros((8, 8, 4), np.uint8), r"\(8, 8, 4\)"),
        (np.zeros((5, 8, 8), np.uint8), r"\[N, h, w, 1 or 3\]"),
        (np.zeros(8, np.uint8), r"\(8,\)"),
        (np.zeros((0, 8), np.uint8), r"\(0, 8\)"),
        ([[1, 2], [3, 4]], "int64"),
        ("a.jpg", r"give uint8, .*np\.asarray\(PIL\.Image\.open\('a\.jpg'\)\)"),
    ],
)
def test_what_is_no_image_is_refused(model, images, message):
    with pytest.raises(UserError, match=message):
        model(images)


def test_wrong_thresholds_and_classes_are_refused(model, image):
    for threshold in (-0.1, 30, float("nan")):
        with pytest.raises(UserError, match=r"threshold = .*0 to 1"):
            model(image, threshold)
    for images in (image, []):
        with pytest.raises(UserError, match="class 'persom': did you mean 'person'"):
            model(images, classes=["vehicle", "persom"])


def test_two_files_are_all_that_another_machine_needs(folder, model, tmp_path, image):
    for suffix in (".safetensors", ".json"):
        (file,) = (folder / "weights").glob(f"*{suffix}")
        shutil.copy(file, tmp_path / f"v1.2{suffix}")
    for name in ("v1.2.safetensors", "v1.2.json", "v1.2"):
        copied = tinyjax.load(str(tmp_path / name))
        assert copied.classes == CLASSES
        assert copied.config == model.config
    equal(copied(image, 0), model(image, 0))


def test_overrides_change_the_config(folder, image):
    assert len(tinyjax.load(folder, overrides=["nms.max_detections=3"])(image, 0)) == 3


def edited(change):
    def edit(_, about):
        about.write_text(json.dumps(change(json.loads(about.read_text()))))

    return edit


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda _, about: about.unlink(), r"x\.json: no such weights"),
        (lambda tensors, _: tensors.unlink(), r"x\.safetensors: no such weights"),
        (lambda _, about: about.write_text('{"frame":'), r"x\.json: not json"),
        (edited(lambda d: {k: d[k] for k in ("frame", "format")}), r"x\.json: no 'classes'"),
        (edited(lambda d: {**d, "parameters": 7}), r"x\.json tells of 7"),
        (lambda tensors, _: tensors.write_bytes(tensors.read_bytes()[:-100]), "broken"),
        (lambda tensors, _: tensors.write_bytes(b""), r"x\.safetensors: broken"),
        (lambda tensors, _: save_file({"w": np.zeros(3)}, tensors), "not written by tinyjax"),
    ],
)
def test_broken_weights_are_named(folder, tmp_path, spoil, message):
    for suffix in (".safetensors", ".json"):
        (file,) = (folder / "weights").glob(f"*{suffix}")
        shutil.copy(file, tmp_path / f"x{suffix}")
    spoil(tmp_path / "x.safetensors", tmp_path / "x.json")
    with pytest.raises(UserError, match=message):
        tinyjax.load(tmp_path / "x")


def test_a_path_without_weights_says_what_is_there(folder, tmp_path):
    with pytest.raises(UserError, match="has the run finished"):
        tinyjax.load(tmp_path)
    with pytest.raises(UserError, match="nowhere"):
        tinyjax.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"-best\.safetensors: no such weights; there are: "):
        tinyjax.load(folder, weights="best")
    with pytest.raises(UserError, match="did you mean 'best'"):
        tinyjax.load(folder, weights="bests")


def test_import_is_light():
    code = (
        "import sys, tinyjax\n"
        "assert {'load', 'train'} <= set(dir(tinyjax))\n"
        "assert callable(tinyjax.train) and callable(tinyjax.train.main)\n"
        "import tinyjax.train as module\n"
        "assert module is tinyjax.train\n"
        "assert not {'jax', 'matplotlib', 'flax'} & set(sys.modules), 'heavy imports'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        tinyjax.lode  # noqa: B018


@pytest.mark.slow
def test_the_example_runs(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["example.py", str(folder), str(CONFIG)])
    runpy.run_path(str(ROOT / "docs" / "example.py"))
    example = tmp_path / "runs" / "example"
    assert {p.name for p in example.iterdir()} == {"found.png", "results.json", "run"}
    assert "class_name" in capsys.readouterr().out
    trained = tinyjax.load(example / "run", weights="best")
    assert trained.classes == CLASSES
    assert json.loads((example / "run" / "config.json").read_text())["optimizer"]["lr"] == 1e-3
