"""Splits of visible-infrared recognition whose images are not needed, only their labels."""

import numpy as np

from tinyjax.data.records import RecognitionSplit


def make_split(labels, cameras=None, captures=None, modality=None, **protocols) -> RecognitionSplit:
    """By default one camera, visible, each image a capture of its own."""
    n = len(labels)
    zeros, labels = np.zeros(n, np.int32), np.asarray(labels, np.int32)
    return RecognitionSplit(
        inputs={
            "image": np.zeros((n, 1, 1, 1), np.uint8),
            "modality": np.asarray(zeros if modality is None else modality, np.uint8),
        },
        labels=labels,
        cameras=np.asarray(zeros if cameras is None else cameras, np.int32),
        captures=np.asarray(np.arange(n) if captures is None else captures, np.int32),
        names=tuple(f"{i}.png" for i in range(n)),
        classes=tuple(map(str, range(labels.max() + 1))),
        protocols=protocols,
    )
