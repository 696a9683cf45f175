"""The loaders with their options as arguments."""

from tinyjax.data import classification, detection
from tinyjax.data.options import ClassificationOptions, DetectionOptions


def load_detection(source, split, classes=(), **options):
    return detection.load(
        DetectionOptions(source=source, split=split, classes=tuple(classes), **options)
    )


def load_classification(source, split, size, **options):
    return classification.load(
        ClassificationOptions(source=source, split=split, size=size, **options)
    )
