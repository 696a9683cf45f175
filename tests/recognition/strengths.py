"""The default strengths of augmentation, by name."""

from tinyjax.config import pretraining, recognizer

FINE_TUNING = recognizer().augment.to_dict()
PRETRAINING = pretraining().augment.to_dict()
