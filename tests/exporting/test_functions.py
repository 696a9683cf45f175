"""The function of an exported file has the outputs of prediction."""

import jax
import numpy as np
import pytest

from tests.exporting.networks import load_detector
from tinyjax.detectors.nms import class_wise_nms
from tinyjax.errors import UserError
from tinyjax.exporting.functions import make_function


@pytest.fixture(scope="module", params=["point", "retinanet"])
def model(request, tmp_path_factory):
    return load_detector(request.param, tmp_path_factory.mktemp("run") / "run")


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (2, 64, 64, 1), np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_suppressed_boxes_are_those_of_prediction(model, images, dtype):
    function = make_function(model, "boxes", dtype)
    outputs = function.call(images.astype(dtype))
    actual = class_wise_nms(outputs["scores"], outputs["boxes"], **model.config.nms)
    predict, variables = model.predict_functions[""]
    expected = predict(variables, {"image": images})
    np.testing.assert_allclose(actual["scores"], expected["scores"], rtol=1e-4)
    np.testing.assert_allclose(actual["boxes"][:, :50], expected["boxes"][:, :50], atol=1e-2)


def test_raw_outputs_are_maps_of_each_level(model, images):
    outputs = jax.eval_shape(make_function(model).call, images)
    assert len(outputs) == 4
    for name, output in outputs.items():
        stride = int(name.split("_")[1])
        assert output.shape[:3] == (2, 64 // stride, 64 // stride)


def test_invalid_arguments_are_named(model):
    for arguments, message in (
        ({"outputs": "box"}, "did you mean 'boxes'"),
        ({"dtype": "int8"}, "did you mean 'uint8'"),
        ({"name": "visible"}, "this network has none"),
    ):
        with pytest.raises(UserError, match=message):
            make_function(model, **arguments)
