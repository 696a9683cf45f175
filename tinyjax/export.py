"""Export: write a trained network as a file for other runtimes, and prove that both agree.

    python -m tinyjax.export --workdir runs/mine --format onnx --output mine.onnx [--nms]

--workdir takes a run folder or a file of weights, as `tinyjax.load` does. The file reads images
[N, H, W, C] with gray values from 0 to 255, of the size that the network was trained for; the
normalization is inside. Its outputs, float32:

    classifier           logits [N, classes]
    recognition          embedding [N, D]; --output a.onnx writes a-visible.onnx and
                         a-infrared.onnx
    detector             <name>_<stride> [N, h, w, n] of each level, before decoding
      --outputs boxes    boxes [N, A, 4] (xyxy, pixels) and scores [N, A, classes] of all candidates
      --nms              detections [N, K, 6]: x1, y1, x2, y2, score, label, after suppression

What a reader needs besides (classes, frame, strides, formula of the boxes, ..) is in the file's
metadata, and with checksum, operators and differences in <output>.json (mine.json). The differences
are those between the network and the file on images of the suite config.monitor, if its data are on
this machine, and on random images.

Exit codes: 0 the file is written, and its outputs are those of the network; 1 they differ; 2 the
input is invalid.
"""

import hashlib
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from tinyjax import config as configs
from tinyjax.config.parsing import PREFIX
from tinyjax.config.paths import parse_local_path
from tinyjax.errors import UserError, run_command, suggest
from tinyjax.run.files import atomic
from tinyjax.run.logs import log, start_log

FORMATS = {"onnx": ".onnx"}  # name -> suffix of the file
FLAGS: dict[str, dict[str, Any]] = {
    "--format": {"required": True, "metavar": "NAME", "help": f"one of {', '.join(FORMATS)}"},
    "--output": {
        "required": True,
        "type": parse_local_path,
        "metavar": "FILE",
        "help": "the file to write",
    },
    "--weights": {
        "choices": ("last", "best"),
        "default": "last",
        "help": "averaged weights of the run folder: the last or the best ones",
    },
    "--outputs": {
        "metavar": "NAME",
        "help": "of a detector: raw (default) or boxes, decoded but not suppressed",
    },
    "--nms": {"action": "store_true", "help": "of a detector: detections after suppression"},
    "--dtype": {
        "default": "uint8",
        "metavar": "NAME",
        "help": "of the images: uint8 (default) or float32, both from 0 to 255",
    },
    "--batch": {"type": int, "metavar": "N", "help": "images per call (default: any number)"},
    "--images": {
        "type": int,
        "default": 16,
        "metavar": "N",
        "help": "images of the suite, and random ones, to compare outputs on (default 16)",
    },
}


def main(argv: list[str] | None = None) -> int:
    """Run the command. Raises UserError for invalid input."""
    options = configs.parse_options("export", __doc__, argv, FLAGS, required=("workdir",))
    check_flags(options)
    start_log()

    from tinyjax.exporting import onnx, runtimes

    onnx.import_onnx()
    runtimes.import_runtime()

    from tinyjax.api import load
    from tinyjax.run import runtime

    runtime.tune_allocator()
    runtime.enable_compile_cache()
    model = load(options.workdir, options.weights, options.overrides)
    if model.config.task != "detect" and (options.nms or options.outputs):
        flag = "--nms" if options.nms else f"--outputs {options.outputs}"
        raise UserError(f"{flag}: not an option of the task {model.config.task}; leave it out")
    greatest = [
        write_file(model, modality, output_file(options.output, modality), options)
        for modality in model.predict_functions
    ]
    from tinyjax.exporting.parity import MAX_RELATIVE_DIFFERENCE

    return int(max(greatest) > MAX_RELATIVE_DIFFERENCE)


def check_flags(options: Any) -> None:
    """Raise UserError for invalid flags."""
    if options.format not in FORMATS:
        raise UserError(f"--format {options.format}: {suggest(options.format, FORMATS)}")
    suffix = FORMATS[options.format]
    if options.output.suffix != suffix:
        raise UserError(f"--output {options.output}: give a file that ends in {suffix}")
    if options.output.is_dir():
        raise UserError(f"--output {options.output}: a folder; give a file")
    if options.outputs not in (None, "raw", "boxes"):
        raise UserError(
            f"--outputs {options.outputs}: {suggest(options.outputs, ('raw', 'boxes'))}"
        )
    if options.nms and options.outputs == "raw":
        raise UserError("--outputs raw: without boxes there is nothing for --nms; leave one out")
    if options.dtype not in ("uint8", "float32"):
        raise UserError(f"--dtype {options.dtype}: {suggest(options.dtype, ('uint8', 'float32'))}")
    for flag, value in (("--batch", options.batch), ("--images", options.images)):
        if value is not None and value < 1:
            raise UserError(f"{flag} {value}: give 1 or more")
    for text in options.overrides:
        if text.startswith((f"{PREFIX}model.", f"{PREFIX}task")):
            raise UserError(f"{text}: the weights belong to the trained network; leave it out")


def output_file(output: Path, modality: str) -> Path:
    """The file of a modality: a.onnx, or a-visible.onnx."""
    return output.with_stem(f"{output.stem}-{modality}") if modality else output


def write_file(model: Any, modality: str, file: Path, options: Any) -> float:
    """Write a file and its record, and log what they contain.

    Returns the greatest relative difference between network and file.
    """
    from tinyjax.exporting import onnx, parity, runtimes
    from tinyjax.exporting.functions import make_function

    outputs = "boxes" if options.nms else options.outputs or "raw"
    function = make_function(model, outputs, options.dtype, modality)
    images = parity.proof_images(model, options.images, modality)
    nms = model.config.nms.to_dict() if options.nms else None
    if nms:
        function = function._replace(metadata={**function.metadata, "outputs": "detections"})
    proto = onnx.write(function, file, options.batch, nms)
    expected = parity.ranked_scores(model) if nms else parity.make_expected(function)
    actual = runtimes.load_onnx(file)
    if nms:
        detections = actual

        def actual(rows):
            return {"scores": detections(rows)["detections"][..., 4]}

    differences = parity.compare(expected, actual, images, options.dtype, options.batch or 1)
    operators = Counter(node.op_type for node in proto.graph.node)
    record = {
        "file": file.name,
        "format": options.format,
        "opset": onnx.OPSET,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "bytes": file.stat().st_size,
        "operators": dict(operators.most_common()),
        "parity": differences,
        "metadata": function.metadata,
    }
    with atomic(file.with_suffix(".json")) as path:
        path.write_text(json.dumps(record, indent=2), encoding="utf-8")
    greatest = parity.greatest(differences)
    counts = " and ".join(f"{count} of {source}" for source, count in differences["images"].items())
    log.info(
        f"{file}: {record['bytes']:,} bytes, {operators.total()} operations of "
        f"{len(operators)} types; greatest difference from the network {greatest:.1e} of an "
        f"output's largest value, on images: {counts}"
    )
    if greatest > parity.MAX_RELATIVE_DIFFERENCE:
        log.warning(f"{file}: its outputs differ from those of the network; do not use it")
    return greatest


if __name__ == "__main__":
    sys.exit(run_command(main))
