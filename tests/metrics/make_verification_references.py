"""Verification rates by scikit-learn's ROC curve, in references/verification.npz.

Run as `python -m tests.metrics.make_verification_references` with scikit-learn 1.9.1, which tinyjax
does not need. The rate at a FAR is that of the nearest point; the last one of equally near points.
"""

from pathlib import Path

import numpy as np

FILE = Path(__file__).parent / "references" / "verification.npz"
TARGETS = (0.01, 0.001)
# name -> seed, identities, images per identity and modality, levels of the features (0: continuous)
CASES = {
    "continuous": (0, 24, 4, 0),
    "ties": (1, 24, 4, 3),
    "few pairs": (2, 5, 3, 0),  # 180 impostor pairs
    "hard": (3, 40, 3, 0),
}


def draw(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embeddings float32 [N, 6], labels and modalities int [N]."""
    seed, identities, images, levels = CASES[name]
    random = np.random.RandomState(seed)
    labels = np.tile(np.repeat(np.arange(identities), images), 2)
    modality = np.repeat([0, 1], identities * images)
    noise = random.standard_normal((len(labels), 6))
    embedding = (
        random.standard_normal((identities, 6))[labels] + (2 if name == "hard" else 1) * noise
    )
    if levels:
        embedding = np.clip(np.round(embedding), -(levels // 2), levels // 2)
        embedding[np.abs(embedding).sum(1) == 0, 0] = 1
    return embedding.astype(np.float32), labels, modality


def main() -> None:
    from sklearn.metrics import roc_curve

    rates = {}
    for name in CASES:
        embedding, labels, modality = draw(name)
        # multiples of 2^-26, so that equal cosines are equal numbers
        unit = (
            embedding.astype(np.float64)
            / np.linalg.norm(embedding.astype(np.float64), axis=1)[:, None]
        )
        unit = np.round(unit * 2**26) / 2**26
        visible, infrared = modality == 0, modality == 1
        similarity = (unit[infrared] @ unit[visible].T).ravel()
        same = (labels[infrared][:, None] == labels[visible]).ravel()
        far, rate, _ = roc_curve(same, similarity)
        nearest = [len(far) - 1 - np.argmin(np.abs(far - target)[::-1]) for target in TARGETS]
        rates[name] = np.stack([rate[nearest], far[nearest]])
    FILE.parent.mkdir(exist_ok=True)
    np.savez_compressed(FILE, **rates)


if __name__ == "__main__":
    main()
