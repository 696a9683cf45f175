"""LiteRT files in their interpreter: the outputs of the network, for every family and detector."""

from collections import Counter

import jax
import numpy as np
import pytest

import tinyjax
from tests.configs import reid
from tests.exporting.comparison import assert_same_outputs, random_images
from tests.exporting.networks import load_classifier, load_detector
from tests.tiny_backbones import MINIS
from tests.untrained import CLASSES, write_initial_weights
from tinyjax.errors import UserError
from tinyjax.exporting import activations, flatbuffer, litert, runtimes
from tinyjax.exporting.functions import ExportedFunction, make_function

# The operators of TensorFlow Lite Micro, micro_mutable_op_resolver.h, without custom operators,
# variables and control flow.
MICRO_RESOLVER = """
    ABS ADD ADD_N ARG_MAX ARG_MIN AVERAGE_POOL_2D BATCH_TO_SPACE_ND BROADCAST_ARGS BROADCAST_TO
    CAST CEIL CONCATENATION CONV_2D COS CUMSUM DEPTH_TO_SPACE DEPTHWISE_CONV_2D DEQUANTIZE ELU
    EQUAL EXP EXPAND_DIMS FILL FLOOR FLOOR_DIV FLOOR_MOD FULLY_CONNECTED GATHER GATHER_ND
    GREATER GREATER_EQUAL HARD_SWISH L2_NORMALIZATION L2_POOL_2D LEAKY_RELU LESS LESS_EQUAL LOG
    LOGICAL_AND LOGICAL_NOT LOGICAL_OR LOGISTIC MAXIMUM MAX_POOL_2D MEAN MINIMUM MIRROR_PAD MUL
    NEG NOT_EQUAL PACK PAD PADV2 PRELU QUANTIZE REDUCE_MAX RELU RELU6 RESHAPE RESIZE_BILINEAR
    RESIZE_NEAREST_NEIGHBOR ROUND RSQRT SHAPE SIN SLICE SOFTMAX SPACE_TO_BATCH_ND SPACE_TO_DEPTH
    SPLIT SPLIT_V SQRT SQUARE SQUEEZE STRIDED_SLICE SUB SVDF TANH TRANSPOSE TRANSPOSE_CONV
    UNPACK
"""
MICRO_OPERATORS = frozenset(MICRO_RESOLVER.split())


def assert_file(function, batch=1):
    """Convert the function and compare outputs. Returns the file."""
    file = litert.convert(function, batch)
    assert_same_outputs(runtimes.load_litert(file), function, batch)
    return file


def operators(file):
    return Counter(flatbuffer.operator_names(flatbuffer.read(file)))


def function_of(call, shape=(4, 6, 3), dtype="float32", **metadata):
    return ExportedFunction(lambda image: {"y": call(image)}, shape, dtype, metadata)


def upsample(x, rows=2, columns=2):
    n, h, w, c = x.shape
    x = jax.numpy.broadcast_to(x[:, :, None, :, None], (n, h, rows, w, columns, c))
    return x.reshape(n, h * rows, w * columns, c)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda x: upsample(x * 2), {"MUL": 1, "RESIZE_NEAREST_NEIGHBOR": 1}),
        (lambda x: upsample(x * 2, 3, 1), {"MUL": 1, "RESIZE_NEAREST_NEIGHBOR": 1}),
        (lambda x: jax.nn.hard_swish(x), {"HARD_SWISH": 1}),
    ],
)
def test_operators(call, expected):
    assert operators(assert_file(function_of(call))) == expected


def test_metadata_and_alignment_of_constants():
    weights = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    file = assert_file(function_of(lambda x: x @ weights, a=[1, "é"], b={"c": 0.5}))
    assert flatbuffer.read_metadata(file) == {"a": [1, "é"], "b": {"c": 0.5}}
    assert file.find(weights.T.tobytes()) % 16 == 0 <= file.find(weights.T.tobytes())
    model = flatbuffer.read(file)
    model.metadata = []
    with pytest.raises(UserError, match="without metadata of the name 'tinyjax'"):
        flatbuffer.read_metadata(flatbuffer.pack(model))


@pytest.mark.parametrize(("scheme", "weight_bytes"), [("float16", 2), ("dynamic", 1)])
def test_schemes_with_float_activations(scheme, weight_bytes):
    weights = np.random.default_rng(0).normal(size=(72, 256)).astype(np.float32)
    function = function_of(lambda x: x.reshape(len(x), -1) @ weights, a=1)
    file = litert.convert(function)
    small = litert.quantize(file, scheme)
    assert len(file) - len(small) > (4 - weight_bytes) * weights.size - 5000  # scales of channels
    images = random_images(function.input_shape, 1, "float32")
    expected, actual = (runtimes.load_litert(each)(images)["y"] for each in (file, small))
    np.testing.assert_allclose(actual, expected, atol=0.01 * np.abs(expected).max())
    assert flatbuffer.read_metadata(small) == {"a": 1}


def test_missing_package_names_the_extra(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(flatbuffer, "import_module", missing)
    with pytest.raises(UserError, match=r"pip install 'tinyjax\[litert\]'"):
        litert.import_packages()


# ---- networks


@pytest.fixture(scope="module", params=["point", "retinanet"])
def network(request, tmp_path_factory):
    return load_detector(request.param, tmp_path_factory.mktemp("run") / "run")


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "batch"), [("float32", 2), ("uint8", 1)])
def test_detectors(network, dtype, batch):
    function = make_function(network, dtype=dtype)
    file = assert_file(function, batch)
    assert flatbuffer.read_metadata(file) == function.metadata
    # Only uint8 needs a CAST, whose kernel for microcontrollers reads no uint8.
    assert ("CAST" in operators(file)) == (dtype == "uint8")
    assert_fits_microcontrollers(file)


@pytest.mark.slow
def test_int8_detectors(network):
    file = litert.convert(make_function(network, dtype="float32"))
    images = [random_images(network.input_shape, 1, "float32")]
    ranges = activations.measure(file, images)
    int8 = litert.quantize(file, "int8", ranges)
    assert not {"CAST", "DEQUANTIZE"} & {*operators(int8)}
    assert_fits_microcontrollers(int8)


def assert_fits_microcontrollers(file):
    assert {*operators(file)} <= MICRO_OPERATORS
    # Most kernels of TensorFlow Lite Micro take at most four or five dimensions.
    assert max(len(t.shape) for t in flatbuffer.read(file).subgraphs[0].tensors) <= 4


@pytest.mark.slow
@pytest.mark.parametrize("family", MINIS)
def test_families(family, tmp_path):
    network = load_classifier(family, tmp_path / "run")
    file = assert_file(make_function(network))
    assert "SELECT" not in operators(file)
    if family not in ("convnext", "swin", "vit"):
        assert {*operators(file)} <= MICRO_OPERATORS | {"BATCH_MATMUL"}


@pytest.mark.slow
@pytest.mark.parametrize("family", ["resnet", "shufflenetv2"])
def test_int8_with_padded_max_pooling(family, tmp_path):
    """The padding's value is the least float32, which no range of int8 may have."""
    function = make_function(load_classifier(family, tmp_path / "run"), dtype="float32")
    file, images = litert.convert(function), random_images(function.input_shape, 4, "float32")
    int8 = litert.quantize(file, "int8", activations.measure(file, [*images[:, None]]))
    expected, actual = (
        np.concatenate([runtimes.load_litert(each)(image[None])["logits"] for image in images])
        for each in (file, int8)
    )
    assert np.abs(actual - expected).max() < 0.1 * np.abs(expected).max()
    assert np.ptp(actual) > 0


@pytest.mark.slow
def test_embeddings_of_both_modalities(tmp_path):
    config = reid.get_config()
    config.model.path_blocks = 1
    inputs = {"image": (32, 16, 3), "modality": ()}
    network = tinyjax.load(write_initial_weights(tmp_path / "run", config, CLASSES, inputs))
    images = random_images((32, 16, 3), 1)
    visible, infrared = (
        runtimes.load_litert(assert_file(make_function(network, name=modality)))(images)
        for modality in ("visible", "infrared")
    )
    assert np.abs(visible["embedding"] - infrared["embedding"]).max() > 0.01
