"""The Python interface: inputs, results and error messages of a trained network; training."""

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
from tests.configs import classifier
from tests.untrained import CLASSES, CONFIG, write_untrained_run
from tinyjax.api import Detections
from tinyjax.errors import UserError
from tinyjax.inference.model import BATCH
from tinyjax.run import distributed, runtime
from tinyjax.run.weights import FORMAT

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_untrained_run(tmp_path_factory.mktemp("model") / "run")


@pytest.fixture(scope="module")
def model(folder):
    return tinyjax.load(folder)


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)


def load_with_fixed_predictions(folder, *rows):
    """A model whose network predicts `rows` (box, score, label) for every image."""
    model = tinyjax.load(folder)
    boxes, scores, labels = (np.array(column) for column in zip(*rows, strict=True))
    predictions = {"boxes": boxes.astype("f4"), "scores": scores, "labels": labels.astype("i4")}

    def predict(_, inputs):
        count = len(inputs["image"])
        return {name: np.repeat(array[None], count, 0) for name, array in predictions.items()}

    model.predict_functions = {"": (predict, None)}
    return model


def assert_equal(actual, expected):
    for name in ("boxes", "scores", "labels"):
        np.testing.assert_array_equal(getattr(actual, name), getattr(expected, name))


def test_boxes_are_in_pixels_of_the_image_and_clipped_to_it(folder):
    model = load_with_fixed_predictions(
        folder,
        ((8, 24, 24, 40), 0.9, 0),
        ((56, 20, 70, 44), 0.8, 2),  # beyond the right border, into the letterbox above and below
        ((0, 2, 10, 12), 0.7, 1),  # entirely in the letterbox
        ((1, 30, 4, 35), 0.0, 0),  # an empty slot
    )
    # The image is halved in size and padded with 24 rows above.
    detections = model(np.zeros((32, 128), np.uint8), threshold=0)
    np.testing.assert_array_equal(detections.boxes, [[16, 0, 48, 32], [112, 0, 128, 32]])
    np.testing.assert_allclose(detections.scores, [0.9, 0.8], rtol=1e-6)
    np.testing.assert_array_equal(detections.labels, [0, 2])
    assert detections.names == ["person", "animal"]
    assert (detections.boxes.dtype, detections.labels.dtype) == (np.float32, np.int32)


def test_threshold_and_classes_select_detections(folder, image):
    rows = [((4, 4, 9, 9), 0.5, 0), ((4, 4, 9, 9), 0.25, 1), ((4, 4, 9, 9), 0.2, 0)]
    model = load_with_fixed_predictions(folder, *rows)
    assert model(image).names == ["person"]
    assert model(image, threshold=0.25).names == ["person", "vehicle"]
    assert model(image, 0, classes="vehicle").names == ["vehicle"]
    assert model(image, 0, classes=("animal", "person")).names == ["person", "person"]
    assert model(image, 0, classes=[]).names == []


def test_empty_detections_convert(model, image):
    detections = model(image, threshold=1.0)
    assert len(detections) == 0
    assert detections.boxes.shape == (0, 4)
    assert detections.to_coco(7) == []
    assert detections.to_supervision()["xyxy"].shape == (0, 4)
    assert detections.to_supervision()["data"]["class_name"].shape == (0,)
    assert detections.draw(image).width == 192


def test_conversions_of_one_detection():
    detections = Detections(
        np.array([[1, 2, 4, 8]], np.float32), np.array([0.75], np.float32), np.array([1]), CLASSES
    )
    row = {"image_id": 3, "category_id": 2, "bbox": [1, 2, 3, 6], "score": 0.75}
    assert json.loads(json.dumps(detections.to_coco(3))) == [row]
    # The arguments of supervision's constructor, checked against it when this was written.
    arguments = detections.to_supervision()
    assert arguments.keys() == {"xyxy", "confidence", "class_id", "data"}
    assert arguments["xyxy"].tolist() == [[1, 2, 4, 8]]
    assert arguments["confidence"].tolist() == [0.75]
    assert arguments["class_id"].tolist() == [1]
    assert arguments["class_id"].dtype == int
    assert arguments["data"]["class_name"].tolist() == ["vehicle"]


def test_single_images_lists_and_arrays(model, image):
    single = model(image, 0)
    assert len(single) > 0
    assert_equal(model(image[..., None], 0), single)
    for images in ([image] * 3, (image, image), np.stack([image] * 3)[..., None]):
        results = model(images, 0)
        assert len(results) == len(images)
        for detections in results:
            np.testing.assert_allclose(detections.scores, single.scores, rtol=1e-5)
    assert model([]) == []


def test_detections_do_not_depend_on_the_other_images_of_a_batch(model, image):
    wide = np.random.default_rng(1).integers(0, 256, (30, 100, 3), np.uint8)
    first, second, third = model([wide, image, wide], 0)
    assert_equal(first, third)
    np.testing.assert_allclose(second.scores, model(image, 0).scores, rtol=1e-5)
    assert (first.boxes >= 0).all()
    assert (first.boxes <= [100, 30, 100, 30]).all()


def test_only_two_batch_sizes_are_compiled_for_all_image_sizes(folder, image, compiled):
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
    assert_equal(model(color, 0), model(gray, 0))
    np.testing.assert_array_equal(model.preprocess(color).pixels[..., 0], gray)
    color_model = tinyjax.load(write_untrained_run(tmp_path / "color", channels=3))
    np.testing.assert_array_equal(color_model.preprocess(image).pixels, np.stack([image] * 3, -1))
    np.testing.assert_array_equal(color_model.preprocess(color).pixels, color)
    assert color_model.input_shape == (64, 64, 3)


def test_16_bit_range_and_fit_follow_the_config(tmp_path, image):
    model = tinyjax.load(
        write_untrained_run(tmp_path / "a", range16=("range", 0, 65535), fit="resize")
    )
    image16 = image.astype(np.uint16) * 257
    for byte_order in ("<u2", ">u2"):
        np.testing.assert_array_equal(
            model.preprocess(image16.astype(byte_order)).pixels[..., 0], image
        )
    stretched = model.preprocess(image[:32])
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
        ("a.jpg", r"a\.jpg: no such file"),
        (ROOT / "README.md", r"README\.md: not a readable image"),
        ([ROOT / "a.jpg"], r"a\.jpg: no such file"),
        (Image.new("LAB", (8, 8)), "image of mode LAB: not a readable image"),
    ],
)
def test_invalid_images_are_refused(model, images, message):
    with pytest.raises(UserError, match=message):
        model(images)


def test_invalid_thresholds_and_classes_are_refused(model, image):
    for threshold in (-0.1, 30, float("nan")):
        with pytest.raises(UserError, match=r"threshold = .*0 to 1"):
            model(image, threshold)
    for images in (image, []):
        with pytest.raises(UserError, match="class 'persom': did you mean 'person'"):
            model(images, classes=["vehicle", "persom"])


def test_weights_and_json_suffice_without_the_run_folder(folder, model, tmp_path, image):
    for suffix in (".safetensors", ".json"):
        (file,) = (folder / "weights").glob(f"*{suffix}")
        shutil.copy(file, tmp_path / f"v1.2{suffix}")
    for name in ("v1.2.safetensors", "v1.2.json", "v1.2"):
        copied = tinyjax.load(str(tmp_path / name))
        assert copied.classes == CLASSES
        assert copied.config == model.config
    assert_equal(copied(image, 0), model(image, 0))


def test_overrides_change_the_config(folder, image):
    assert len(tinyjax.load(folder, overrides=["nms.max_detections=3"])(image, 0)) == 3


def edit_metadata(change):
    def edit(_, metadata):
        metadata.write_text(json.dumps(change(json.loads(metadata.read_text()))))

    return edit


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda _, metadata: metadata.unlink(), r"x\.json: no such weights"),
        (lambda tensors, _: tensors.unlink(), r"x\.safetensors: no such weights"),
        (lambda _, metadata: metadata.write_text('{"inputs":'), r"x\.json: not json"),
        (
            edit_metadata(lambda d: {k: d[k] for k in ("inputs", "format")}),
            r"x\.json: no 'classes'",
        ),
        (edit_metadata(lambda d: {**d, "format": FORMAT - 1}), r"x\.json: .*of an older tinyjax"),
        (edit_metadata(lambda d: {**d, "parameters": 7}), r"x\.json describes 7"),
        (lambda tensors, _: tensors.write_bytes(tensors.read_bytes()[:-100]), "broken"),
        (lambda tensors, _: tensors.write_bytes(b""), r"x\.safetensors: broken"),
        (lambda tensors, _: save_file({"w": np.zeros(3)}, tensors), "not written by tinyjax"),
    ],
)
def test_broken_weights_are_named(folder, tmp_path, damage, message):
    for suffix in (".safetensors", ".json"):
        (file,) = (folder / "weights").glob(f"*{suffix}")
        shutil.copy(file, tmp_path / f"x{suffix}")
    damage(tmp_path / "x.safetensors", tmp_path / "x.json")
    with pytest.raises(UserError, match=message):
        tinyjax.load(tmp_path / "x")


def test_missing_weights_are_reported_with_those_that_exist(folder, tmp_path):
    with pytest.raises(UserError, match="has the run finished"):
        tinyjax.load(tmp_path)
    with pytest.raises(UserError, match="nowhere"):
        tinyjax.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"-best\.safetensors: no such weights; available: "):
        tinyjax.load(folder, weights="best")
    with pytest.raises(UserError, match="did you mean 'best'"):
        tinyjax.load(folder, weights="bests")


def test_import_is_light():
    code = (
        "import sys, tinyjax\n"
        "assert {'load', 'train'} <= set(dir(tinyjax))\n"
        "assert not {'jax', 'matplotlib', 'flax'} & set(sys.modules), 'heavy imports'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        tinyjax.lode  # noqa: B018


def test_train_is_a_function_of_the_package(train_once, noise_images):
    """In a process of its own: importing the module tinyjax.train rebinds the attribute.

    The run is finished, so that nothing is compiled.
    """
    code = (
        "import sys, tinyjax\n"
        "from tinyjax import config as configs\n"
        "assert callable(tinyjax.load) and tinyjax.train.__module__ == 'tinyjax.api'\n"
        "sys.exit(tinyjax.train(configs.load(sys.argv[1]), sys.argv[2]))\n"
    )
    config, run = f"{classifier.__file__}:{noise_images}", train_once("classifier") / "run"
    command = [sys.executable, "-c", code, config, str(run)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "this run is finished" in done.stdout
    assert tinyjax.load(run, weights="best").classes == ("cat", "dog")


def test_train_tunes_the_allocator_before_devices_are_initialized(monkeypatch, tmp_path):
    """Asking for the process initializes them; after that, every step causes page faults."""
    calls = []

    def process_index():
        calls.append("devices")
        raise UserError("stop here")

    monkeypatch.setattr(runtime, "tune_allocator", lambda: calls.append("allocator"))
    monkeypatch.setattr(distributed, "process_index", process_index)
    with pytest.raises(UserError, match="stop here"):
        tinyjax.train(classifier.get_config(), tmp_path / "run")
    assert calls == ["allocator", "devices"]


@pytest.mark.slow
def test_example_runs(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["example.py", str(folder), str(CONFIG)])
    runpy.run_path(str(ROOT / "docs" / "example.py"))
    example = tmp_path / "runs" / "example"
    assert {p.name for p in example.iterdir()} == {"detections.png", "results.json", "run"}
    assert "class_name" in capsys.readouterr().out
    trained = tinyjax.load(example / "run", weights="best")
    assert trained.classes == CLASSES
    assert json.loads((example / "run" / "config.json").read_text())["optimizer"]["lr"] == 1e-3
