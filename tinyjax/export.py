"""Export: write a trained network as a file for other runtimes, and prove that both agree.

    python -m tinyjax.export --workdir runs/mine --format onnx --output mine.onnx [--nms]
    python -m tinyjax.export --workdir runs/mine --format litert --output mine.tflite [--int8]
    python -m tinyjax.export --workdir runs/mine --format stablehlo --output mine.stablehlo [--nms]

--workdir takes a run folder or a file of weights, as `tinyjax.load` does. The file reads images
[N, H, W, C] with gray values from 0 to 255, of the size that the network was trained for; the
normalization is inside. Its outputs:

    classifier           logits [N, classes]
    recognition          embedding [N, D]; --output a.onnx writes a-visible.onnx and
                         a-infrared.onnx
    detector             <name>_<stride> [N, h, w, n] of each level, before decoding
      --outputs boxes    boxes [N, A, 4] (xyxy, pixels) and scores [N, A, classes] of all candidates
      --nms              detections [N, K, 6]: x1, y1, x2, y2, score, label, after suppression
    two-stage detector   --output a.onnx writes a-rpn.onnx, a-head1.onnx and so on, see
                         `exporting.two_stage`; with --outputs boxes or --nms, one file

A LiteRT file of a detector has raw outputs only, and a fixed number of images per
call. --quantize makes it smaller: float16 (weights), dynamic (weights int8), int8 (weights and
activations int8), int16 (activations int16). Integer activations need training images.

What a reader needs besides (classes, frame, strides, formula of the boxes, ..) is in the
file's metadata, and with checksum, operators and differences in <output>.json (mine.onnx.json). The
differences are those between the network and the file on images of the suite config.monitor, if
its data are on this machine, and on random images. The scores of both on the whole suite are
there, too. A quantized file is written if its score is at most a point (0.01) less than the run's.

Exit codes: 0 the file is written, and its outputs are those of the network, or its score is
accepted; 1 the outputs differ; 2 the input is invalid; 3 the score of a quantized file is not
accepted, or not known, and the file is not written, unless --force is given.
"""

import hashlib
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from tinyjax import config as configs
from tinyjax.errors import UserError, run_command
from tinyjax.exporting.options import FLAGS, check
from tinyjax.run.files import atomic
from tinyjax.run.logs import log, start_log

REFUSED = 3  # exit code


class ExportedFile(NamedTuple):
    """A file before it is written."""

    path: Path
    content: bytes
    function: Any  # an `ExportedFunction`
    run: Any  # the outputs of the file, a `runtimes.Runner`
    description: Any  # a `runtimes.FileDescription`
    operators: Counter[str]
    details: dict[str, Any]  # fields of the record that only this format has


def main(argv: list[str] | None = None) -> int:
    """Run the command. Raises UserError for invalid input."""
    options = configs.parse_options("export", __doc__, argv, FLAGS, required=("workdir",))
    check(options)
    start_log()
    import_packages(options.format)

    from tinyjax.api import load
    from tinyjax.exporting import acceptance
    from tinyjax.exporting.functions import file_names
    from tinyjax.exporting.predictions import make_functions
    from tinyjax.run import runtime

    runtime.tune_allocator()
    runtime.enable_compile_cache()
    model = load(options.workdir, options.weights, options.overrides)
    if model.config.task != "detect" and (options.nms or options.outputs):
        flag = "--nms" if options.nms else f"--outputs {options.outputs}"
        raise UserError(f"{flag}: not an option of the task {model.config.task}; leave it out")
    make = {"onnx": make_onnx, "litert": make_litert, "stablehlo": make_stablehlo}[options.format]
    names = file_names(model, "detections" if options.nms else options.outputs or "raw")
    files = {name: make(model, name, options) for name in names}
    split = acceptance.load_monitor(model)
    runs = {name: (file.run, file.description) for name, file in files.items()}
    functions = make_functions(runs, model.config)
    score = split and acceptance.score_file(model, split, functions)
    if options.quantize and not accept(score, options):
        return REFUSED
    return max(write_file(model, split, score, name, file, options) for name, file in files.items())


def accept(score: Any, options: Any) -> bool:
    """Whether to write a quantized file; logs why not. score: see `write_file`."""
    from tinyjax.exporting import acceptance

    reasons = acceptance.reasons(score)
    for reason in reasons:
        log.warning(f"{options.output}: {reason}")
    if reasons and not options.force:
        log.error(
            f"{options.output}: not written; try --explain, another --quantize, or --force to "
            "write it all the same"
        )
    return options.force or not reasons


def import_packages(name: str) -> None:
    """Raise UserError if the packages of a format are not installed."""
    from tinyjax.exporting import litert, onnx, runtimes

    if name == "litert":
        litert.import_packages()
    elif name == "onnx":
        onnx.import_onnx()
        runtimes.import_runtime()


def rows(function: Any, batch: int | None) -> int | None:
    """How many rows a file reads per call: images, or their RoIs. batch: of images; None: any."""
    return None if batch is None else batch * function.rows_per_image


def make_onnx(model: Any, name: str, options: Any) -> ExportedFile:
    """An ONNX file of a network."""
    from tinyjax.exporting import onnx, runtimes
    from tinyjax.exporting.functions import make_function
    from tinyjax.exporting.network_files import with_name

    outputs = "boxes" if options.nms else options.outputs or "raw"
    function = make_function(model, outputs, options.dtype, name)
    nms = model.config.nms.to_dict() if options.nms else None
    if nms:
        function = function._replace(metadata={**function.metadata, "outputs": "detections"})
    batch = rows(function, options.batch)
    proto = onnx.convert(function, batch, nms)
    content = proto.SerializeToString()
    operators = Counter(node.op_type for node in proto.graph.node)
    details = {"opset": onnx.OPSET}
    path, run = with_name(options.output, name), runtimes.load_onnx(content)
    description = runtimes.FileDescription(function.metadata, batch)
    return ExportedFile(path, content, function, run, description, operators, details)


def make_stablehlo(model: Any, name: str, options: Any) -> ExportedFile:
    """A StableHLO file of a network."""
    from tinyjax.exporting import stablehlo
    from tinyjax.exporting.functions import make_function
    from tinyjax.exporting.network_files import with_name
    from tinyjax.exporting.runtimes import FileDescription

    outputs = "detections" if options.nms else options.outputs or "raw"
    function = make_function(model, outputs, options.dtype, name)
    batch = rows(function, options.batch)
    content = stablehlo.convert(function, batch)
    path, run = with_name(options.output, name), stablehlo.load(content)
    description = FileDescription(function.metadata, batch)
    operators, details = stablehlo.count_operations(content), stablehlo.details()
    return ExportedFile(path, content, function, run, description, operators, details)


def make_litert(model: Any, name: str, options: Any) -> ExportedFile:
    """A LiteRT file of a network."""
    from tinyjax.exporting import (
        calibration,
        ethos_u,
        flatbuffer,
        litert,
        micro,
        resources,
        runtimes,
    )
    from tinyjax.exporting.functions import make_function
    from tinyjax.exporting.network_files import with_name

    scheme = options.quantize
    details: dict[str, Any] = {}
    is_integer = scheme in litert.INTEGER_SCHEMES
    function = make_function(model, "raw", "float32" if is_integer else options.dtype, name)
    images_per_call = options.batch or 1
    batch = images_per_call * function.rows_per_image
    if scheme:
        dtype = function.dtype
        if is_integer:
            dtype = scheme if function.make_input else options.dtype
        shape = {**function.metadata["input"], "dtype": dtype}
        metadata = {**function.metadata, "input": shape, "quantization": scheme}
        function = function._replace(metadata=metadata)
    content = litert.convert(function, batch)
    if is_integer:
        inputs = calibration.make_inputs(
            model, function, options.calibration, images_per_call, name
        )
        content, details = calibration.quantize(content, scheme, inputs)
        if options.explain:
            log.info(f"{options.output}: {calibration.table(details)}")
    elif scheme:
        content = litert.quantize(content, scheme)
    device = resources.estimate(content)
    if scheme == "int8":
        device |= ethos_u.estimate(content) | micro.estimate(content)
    details = {**details, "device": device}
    operators = Counter(flatbuffer.operator_names(flatbuffer.read(content)))
    path, run = with_name(options.output, name), runtimes.load_litert(content)
    description = runtimes.FileDescription(function.metadata, batch)
    return ExportedFile(path, content, function, run, description, operators, details)


def compare_outputs(
    model: Any, split: Any, name: str, file: ExportedFile, options: Any
) -> dict[str, Any]:
    """The differences between network and file, see `parity.compare`."""
    import numpy as np

    from tinyjax.exporting import parity

    function, dtype = file.function, options.dtype
    modality = name if name in model.predict_functions else ""
    images = parity.proof_images(model, split, options.images, modality)
    if make_input := function.make_input:
        images = {source: np.asarray(make_input(pixels)) for source, pixels in images.items()}
        dtype = function.dtype
    expected, actual = parity.make_expected(function), file.run
    if file.description.metadata.get("outputs") == "detections":
        expected = parity.ranked_scores(model)

        def actual(rows):
            return {"scores": file.run(rows)["detections"][..., 4]}

    batch = rows(function, options.batch or 1) or 1
    return parity.compare(expected, actual, images, dtype, batch)


def write_file(
    model: Any, split: Any, score: Any, name: str, file: ExportedFile, options: Any
) -> int:
    """Write a file and its record, and log what they contain. Returns the exit code.

    score: a result of `acceptance.score_file`, or None.
    """
    from tinyjax.exporting import parity
    from tinyjax.exporting.network_files import record_path

    differences = compare_outputs(model, split, name, file, options)
    record = {
        "file": file.path.name,
        "format": options.format,
        **file.details,
        "sha256": hashlib.sha256(file.content).hexdigest(),
        "bytes": len(file.content),
        "operators": dict(file.operators.most_common()),
        "parity": differences,
        "score": score,
        "metadata": file.function.metadata,
    }
    with atomic(file.path) as path:
        path.write_bytes(file.content)
    with atomic(record_path(file.path)) as path:
        path.write_text(json.dumps(record, indent=2), encoding="utf-8")
    greatest = parity.greatest(differences)
    counts = " and ".join(f"{count} of {source}" for source, count in differences["images"].items())
    log.info(
        f"{file.path}: {record['bytes']:,} bytes, {file.operators.total()} operations of "
        f"{len(file.operators)} types; greatest difference from the network {greatest:.1e} of an "
        f"output's largest value, on: {counts}"
    )
    if score:
        log.info(
            f"{score['metric']} on {score['suite']}: run {100 * score['run']:.2f}, "
            f"file {100 * score['file']:.2f}"
        )
    if not options.quantize and greatest > parity.MAX_RELATIVE_DIFFERENCE:
        log.warning(f"{file.path}: its outputs differ from those of the network; do not use it")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
