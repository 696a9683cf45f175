"""Exported files as networks: predictions are those of the run, and broken files are named."""

import numpy as np
import pytest

import tinyjax
from tests.configs import detector
from tests.configs.detectors import two_stage_config
from tests.recognition.recognition_runs import people, write_recognition_run
from tests.tiny_backbones import TINY
from tests.untrained import CLASSES, write_initial_weights, write_random_detector
from tinyjax import config as configs
from tinyjax.data.modality import MODALITIES
from tinyjax.errors import UserError
from tinyjax.exporting import network_files, onnx, predictions
from tinyjax.exporting.functions import ExportedFunction, make_function

LOW = 0.05  # threshold for networks that were never trained


def write_file(model, file, outputs="raw", dtype="uint8", batch=None, modality="", **metadata):
    """Write an ONNX file as tinyjax.export does, with changes of its metadata.

    outputs: of a detector: raw, boxes or detections.
    """
    nms = model.config.nms.to_dict() if outputs == "detections" else None
    function = make_function(model, "boxes" if nms else outputs, dtype, modality)
    metadata = {**function.metadata, **({"outputs": outputs} if nms else {}), **metadata}
    metadata = {name: value for name, value in metadata.items() if value is not None}
    onnx.write(function._replace(metadata=metadata), file, batch, nms)
    return file


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Detector -> a network whose scores and boxes differ, see `write_random_detector`."""
    folder = tmp_path_factory.mktemp("runs")
    named = {name: detector.get_config(name=name) for name in ("point", "retinanet")}
    named |= {name: two_stage_config(name) for name in ("faster_rcnn", "cascade_rcnn")}
    return {
        name: tinyjax.load(write_random_detector(folder / name, config))
        for name, config in named.items()
    }


@pytest.fixture
def photos():
    """Images of several sizes."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, size, np.uint8) for size in ((64, 64), (50, 80), (90, 30))]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "outputs", "dtype", "batch"),
    [
        ("point", "raw", "uint8", None),
        ("point", "boxes", "float32", 2),
        ("point", "detections", "uint8", None),
        ("retinanet", "raw", "uint8", 2),
        ("retinanet", "detections", "uint8", 1),
        ("faster_rcnn", "boxes", "uint8", None),
        ("faster_rcnn", "detections", "float32", 2),
        ("cascade_rcnn", "boxes", "uint8", 1),
    ],
)
def test_detections_are_those_of_the_run(networks, photos, tmp_path, name, outputs, dtype, batch):
    model = networks[name]
    loaded = tinyjax.load(write_file(model, tmp_path / "mine.onnx", outputs, dtype, batch))
    assert loaded.classes == CLASSES
    for actual, expected in zip(loaded(photos, LOW), model(photos, LOW), strict=True):
        assert len(expected) > 10
        assert expected.labels.max() > 0
        np.testing.assert_array_equal(actual.labels, expected.labels)
        np.testing.assert_allclose(actual.scores, expected.scores, atol=1e-5)
        np.testing.assert_allclose(actual.boxes, expected.boxes, atol=1e-2)


@pytest.mark.slow
def test_classes_are_those_of_the_run(photos, tmp_path):
    config = configs.classifier()
    config.model.backbone = TINY
    run = write_initial_weights(tmp_path / "run", config, CLASSES, {"image": (64, 48, 3)})
    model = tinyjax.load(run)
    loaded = tinyjax.load(write_file(model, tmp_path / "mine.onnx"))
    for actual, expected in zip(loaded(photos), model(photos), strict=True):
        assert actual.names == expected.names
        np.testing.assert_allclose(actual.scores, expected.scores, atol=1e-5)


@pytest.mark.slow
def test_embeddings_of_a_file_for_each_modality(tmp_path):
    model = tinyjax.load(write_recognition_run(tmp_path / "run"))
    files = [write_file(model, tmp_path / f"a-{m}.onnx", modality=m) for m in MODALITIES]
    expected = [model.embed(x, m) for x, m in zip(people(), MODALITIES, strict=True)]
    for path in (*files, tmp_path / "a.onnx"):
        loaded = tinyjax.load(path)
        for images, name, embedding in zip(people(), MODALITIES, expected, strict=True):
            np.testing.assert_allclose(loaded.embed(images, name), embedding, atol=1e-5)
    network = network_files.open_network(files[1])
    assert network.path == tmp_path / "a.onnx"
    assert network.metadata["trained_on"] == model.trained_on != ()
    modality = np.repeat([0, 1], [*map(len, expected)])
    order = np.random.default_rng(0).permutation(len(modality))
    inputs = {"image": np.concatenate(people())[order], "modality": modality[order]}
    (outputs,) = network.predict(inputs)
    np.testing.assert_allclose(outputs["embedding"], np.concatenate(expected)[order], atol=1e-5)
    files[0].unlink()
    with pytest.raises(UserError, match=r"a-visible.onnx: no such file"):
        tinyjax.load(files[1])


METADATA = {
    "task": "classify",
    "classes": [*CLASSES],
    "input": {"height": 8, "width": 8, "channels": 3, "dtype": "uint8"},
    "config": configs.classifier().to_dict(),
}


def write_function(file, batch=None, **metadata):
    """A file whose logits are the means of the colors, with changes of METADATA."""
    metadata = {name: value for name, value in {**METADATA, **metadata}.items() if value}
    function = ExportedFunction(
        lambda image: {"logits": image.astype(np.float32).mean((1, 2))},
        (8, 8, 3),
        "uint8",
        metadata,
    )
    onnx.write(function, file, batch)
    return file


@pytest.mark.parametrize(("batch", "count"), [(None, 5), (1, 3), (4, 3), (4, 9), (4, 4)])
def test_any_number_of_images_for_a_fixed_batch(batch, count, tmp_path):
    network = network_files.open_network(write_function(tmp_path / "a.onnx", batch))
    images = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), np.uint8)
    (outputs,) = network.predict({"image": images})
    np.testing.assert_allclose(outputs["logits"], images.mean((1, 2)), rtol=1e-5)


@pytest.mark.parametrize(
    ("metadata", "overrides", "message"),
    [
        ({"config": None}, (), "no 'config' in its metadata, .*export the network again"),
        ({"task": None}, (), "no 'task' in its metadata"),
        ({"task": "detect"}, (), "no 'outputs' in its metadata"),
        ({"input": {"height": 8}}, (), "its metadata is damaged .*width"),
        ({"config": "mine"}, (), "its metadata is damaged"),
        ({"modality": "visible"}, (), "infrared.onnx: no such file"),
        ({}, ["--config.predict.flip=true"], r"predict.flip=true: part of what .*a.onnx computes"),
        ({}, ["--config.model.backbone=vit/ti"], "model.backbone=vit/ti: part of what"),
        ({}, ["--config.data.formt=x"], "did you mean --config.data.format"),
    ],
)
def test_files_that_are_not_networks_are_named(metadata, overrides, message, tmp_path):
    file = write_function(tmp_path / "a.onnx", **metadata)
    with pytest.raises(UserError, match=message):
        network_files.open_network(file, overrides)


def test_suppression_in_the_file_cannot_be_changed(tmp_path):
    fields = {"task": "detect", "config": detector.get_config().to_dict()}
    file = write_function(tmp_path / "a.onnx", outputs="detections", **fields)
    with pytest.raises(UserError, match=r"nms\.iou_threshold=0.3: part of what"):
        network_files.open_network(file, ["--config.nms.iou_threshold=0.3"])


def test_files_that_cannot_be_read_are_named(tmp_path):
    file = write_function(tmp_path / "a.onnx")
    (tmp_path / "b.onnx").write_bytes(file.read_bytes()[:200])
    (tmp_path / "c.onnx").write_text("not a network")
    for name, message in (
        ("b.onnx", "b.onnx: not an ONNX file that can be read"),
        ("c.onnx", "c.onnx: not an ONNX file that can be read"),
        ("d.onnx", "d.onnx: no such file"),
        ("a.onxx", r"a.onxx: not a file of tinyjax.export; give one that ends in .onnx"),
    ):
        with pytest.raises(UserError, match=message):
            network_files.open_network(tmp_path / name)
    with pytest.raises(UserError, match="has one set of weights"):
        tinyjax.load(file, weights="best")


def test_two_files_of_different_networks_are_refused(tmp_path):
    for name in MODALITIES:
        metadata = {"modality": name, "classes": [name]}
        write_function(tmp_path / f"a-{name}.onnx", **metadata)
    with pytest.raises(UserError, match=r"a-infrared.onnx: not the infrared file of the network"):
        tinyjax.load(tmp_path / "a.onnx")


def test_levels_are_joined_in_the_order_of_the_network():
    """Two classes, and two anchors in each cell of the coarser level."""
    maps = {
        "deltas_8": np.arange(8.0).reshape(1, 1, 1, 8),
        "logits_8": np.arange(4.0).reshape(1, 1, 1, 4),
        "deltas_4": 10 + np.arange(16.0).reshape(1, 2, 2, 4),
        "logits_4": 10 + np.arange(8.0).reshape(1, 2, 2, 2),
    }
    logits, deltas = predictions.flatten_levels(maps, (4, 8), ("a", "b"))
    fine, coarse = 10 + np.arange(8), np.arange(4)
    np.testing.assert_array_equal(logits, [np.concatenate([fine, coarse]).reshape(-1, 2)])
    fine, coarse = 10 + np.arange(16), np.arange(8)
    np.testing.assert_array_equal(deltas, [np.concatenate([fine, coarse]).reshape(-1, 4)])
