"""Images changed by torchvision and Pillow, stored in references/augmentation.npz.

Run as `python -m tests.recognition.make_augmentation_references` with torchvision 0.28.0 and Pillow
13.0.0.
"""

import io
from pathlib import Path

import numpy as np

FILE = Path(__file__).parent / "references" / "augmentation.npz"
FACTORS, TURNS, QUALITIES = (0.4, 1.7), (-0.4, 0.1, 0.5), (20, 45, 50, 60)


def image() -> np.ndarray:
    """uint8 [21, 26, 3]: a smooth gradient, noise, and areas of pure and gray colors."""
    random = np.random.RandomState(0)
    y, x = np.mgrid[:21, :26]
    levels = np.stack([10 * y + 2 * x, 255 - 9 * x, 6 * y + 3 * x], -1).clip(0, 255)
    levels[:, 13:] = (levels[:, 13:] + random.randint(-60, 60, (21, 13, 3))).clip(0, 255)
    colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (90, 90, 90), (0, 0, 0)]
    for i, color in enumerate(colors):
        levels[3 * i : 3 * i + 3, :3] = color
    return levels.astype(np.uint8)


def main() -> None:
    import torch
    from PIL import Image, ImageFilter
    from torchvision.transforms import functional

    tensor = torch.from_numpy(image()).permute(2, 0, 1).float() / 255
    gray = Image.fromarray(image()).convert("L")
    arrays = {"gray": np.asarray(gray), "sharpen": np.asarray(gray.filter(ImageFilter.SHARPEN))}
    for name in ("brightness", "contrast", "saturation"):
        for factor in FACTORS:
            changed = getattr(functional, f"adjust_{name}")(tensor, factor)
            arrays[f"{name}.{factor}"] = changed.permute(1, 2, 0).numpy()
    for turns in TURNS:
        arrays[f"hue.{turns}"] = functional.adjust_hue(tensor, turns).permute(1, 2, 0).numpy()
    for quality in QUALITIES:
        file = io.BytesIO()
        gray.save(file, "JPEG", quality=quality)
        arrays[f"jpeg.{quality}"] = np.asarray(Image.open(file))
    FILE.parent.mkdir(exist_ok=True)
    np.savez_compressed(FILE, **arrays)


if __name__ == "__main__":
    main()
