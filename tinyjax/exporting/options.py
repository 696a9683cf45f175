"""The flags of tinyjax.export, and what is wrong with them."""

from typing import Any

from tinyjax.config.parsing import PREFIX
from tinyjax.config.paths import parse_local_path
from tinyjax.errors import UserError, suggest

FORMATS = {
    "onnx": ".onnx",
    "litert": ".tflite",
    "stablehlo": ".stablehlo",
}  # name -> suffix of the file
QUANTIZATIONS = ("float16", "dynamic", "int8", "int16")
INTEGER = ("int8", "int16")  # also the activations
CALIBRATION = 200  # training images
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
    "--batch": {
        "type": int,
        "metavar": "N",
        "help": "images per call (default: 1 in a LiteRT file, any number in others)",
    },
    "--quantize": {
        "metavar": "NAME",
        "help": f"of a LiteRT file: {', '.join(QUANTIZATIONS)}",
    },
    "--int8": {"action": "store_true", "help": "short for --quantize int8"},
    "--calibration": {
        "type": int,
        "metavar": "N",
        "help": "training images to measure the ranges of int8 and int16 on (default 200)",
    },
    "--explain": {
        "action": "store_true",
        "help": "of an int8 file: print the tensors that cause most of its error",
    },
    "--force": {
        "action": "store_true",
        "help": "write a quantized file even if its score is too low, or not known",
    },
    "--images": {
        "type": int,
        "default": 16,
        "metavar": "N",
        "help": "images of the suite, and random ones, to compare outputs on (default 16)",
    },
}


def check(options: Any) -> None:
    """Resolve --int8 and the default of --calibration, in place.

    Raises UserError for invalid flags.
    """
    if options.format not in FORMATS:
        raise UserError(f"--format {options.format}: {suggest(options.format, FORMATS)}")
    suffix = FORMATS[options.format]
    if options.output.suffix != suffix:
        raise UserError(f"--output {options.output}: give a file that ends in {suffix}")
    if options.output.is_dir():
        raise UserError(f"--output {options.output}: a folder; give a file")
    if options.format == "litert" and (options.nms or options.outputs == "boxes"):
        flag = "--nms" if options.nms else "--outputs boxes"
        raise UserError(
            f"{flag}: not with --format litert, whose files have raw outputs; leave "
            "it out, and decode as docs/export.md describes: the constants are in the metadata"
        )
    if options.outputs not in (None, "raw", "boxes"):
        raise UserError(
            f"--outputs {options.outputs}: {suggest(options.outputs, ('raw', 'boxes'))}"
        )
    if options.nms and options.outputs == "raw":
        raise UserError("--outputs raw: without boxes there is nothing for --nms; leave one out")
    if options.dtype not in ("uint8", "float32"):
        raise UserError(f"--dtype {options.dtype}: {suggest(options.dtype, ('uint8', 'float32'))}")
    _check_quantization(options)
    for flag, value in (
        ("--batch", options.batch),
        ("--images", options.images),
        ("--calibration", options.calibration),
    ):
        if value is not None and value < 1:
            raise UserError(f"{flag} {value}: give 1 or more")
    for text in options.overrides:
        if text.startswith((f"{PREFIX}model.", f"{PREFIX}task")):
            raise UserError(f"{text}: the weights belong to the trained network; leave it out")


def _check_quantization(options: Any) -> None:
    if options.int8 and options.quantize not in (None, "int8"):
        raise UserError(f"--int8: short for --quantize int8, not {options.quantize}; give one")
    scheme = options.quantize = "int8" if options.int8 else options.quantize
    if scheme and options.format != "litert":
        raise UserError(f"--quantize {scheme}: only with --format litert; leave it out")
    if scheme and scheme not in QUANTIZATIONS:
        raise UserError(f"--quantize {scheme}: {suggest(scheme, QUANTIZATIONS)}")
    if options.force and not scheme:
        raise UserError("--force: only with --quantize; leave it out")
    if options.explain and scheme != "int8":
        raise UserError("--explain: only with --quantize int8; leave it out")
    if scheme in INTEGER and options.dtype != "uint8":
        raise UserError(f"--dtype {options.dtype}: an {scheme} file reads uint8; leave it out")
    if options.calibration is not None and scheme not in INTEGER:
        raise UserError("--calibration: only with --quantize int8 or int16; leave it out")
    if options.calibration is None:
        options.calibration = CALIBRATION
