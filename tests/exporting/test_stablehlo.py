"""StableHLO files in JAX: the outputs of the network, for any number of images."""

import json
import zipfile

import jax
import numpy as np
import pytest

import tinyjax
from tests.configs import detector
from tests.exporting.comparison import assert_same_outputs, random_images
from tests.exporting.networks import load_classifier
from tests.tiny_backbones import MINIS
from tests.untrained import write_random_detector
from tinyjax.errors import UserError
from tinyjax.exporting import parity, stablehlo
from tinyjax.exporting.functions import ExportedFunction, make_function


def assert_file(function, batch=None):
    """Convert the function and compare outputs for one and three images. Returns the file."""
    file = stablehlo.convert(function, batch)
    for count in (batch,) if batch else (1, 3):
        assert_same_outputs(stablehlo.load(file), function, count)
    return file


def mean_colors(**metadata):
    def call(image):
        return {"logits": image.astype(np.float32).mean((1, 2))}

    return ExportedFunction(call, (4, 6, 3), "uint8", metadata)


@pytest.mark.parametrize("batch", [None, 2])
def test_outputs_metadata_and_batch_size(batch, tmp_path):
    metadata = {"a": [1, "é"], "b": {"c": 0.5}}
    content = assert_file(mean_colors(**metadata), batch)
    assert content == stablehlo.convert(mean_colors(**metadata), batch)
    assert b".py" not in content  # no path of this machine
    file = tmp_path / "mine.stablehlo"
    file.write_bytes(content)
    assert stablehlo.describe(file) == (metadata, batch)
    assert stablehlo.count_operations(content)["reduce"] == 1


def test_a_reader_needs_only_jax_and_zipfile(tmp_path):
    file = tmp_path / "mine.stablehlo"
    file.write_bytes(stablehlo.convert(mean_colors(a=1)))
    with zipfile.ZipFile(file) as archive:
        assert json.loads(archive.read("metadata.json")) == {"a": 1}
        exported = jax.export.deserialize(bytearray(archive.read("function.jax")))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    images = random_images((4, 6, 3), 2)
    np.testing.assert_allclose(exported.call(images)["logits"], images.mean((1, 2)), rtol=1e-6)


def test_files_that_cannot_be_read_are_named(tmp_path):
    content = stablehlo.convert(mean_colors())
    with zipfile.ZipFile(tmp_path / "other.stablehlo", "w") as archive:
        archive.writestr("function.jax", b"not a function")
    with zipfile.ZipFile(tmp_path / "empty.stablehlo", "w"):
        pass
    (tmp_path / "short.stablehlo").write_bytes(content[: len(content) // 2])
    for name in ("other", "empty", "short"):
        file = tmp_path / f"{name}.stablehlo"
        for read in (stablehlo.describe, stablehlo.load):
            with pytest.raises(UserError, match=f"{name}.stablehlo: not a StableHLO file that"):
                read(file)


# ---- networks


@pytest.mark.slow
@pytest.mark.parametrize("family", MINIS)
def test_families(family, tmp_path):
    network = load_classifier(family, tmp_path / "run")
    assert_file(make_function(network))


@pytest.mark.slow
def test_detections_are_those_of_the_run(tmp_path):
    network = tinyjax.load(write_random_detector(tmp_path / "run", detector.get_config()))
    function = make_function(network, "detections")
    file = assert_file(function)
    images = random_images((64, 64, 1), 3)
    expected = parity.ranked_scores(network)(images)["scores"]
    actual = stablehlo.load(file)(images)["detections"]
    np.testing.assert_allclose(actual[..., 4], expected, rtol=1e-5)
    assert (actual[..., 4] > 0).sum() > 10
