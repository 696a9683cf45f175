"""Results of the published package for two small scenes, stored in corrupted.npz for
test_corrupt.py; and the figure of all corruptions in the documentation.

Run `python tests/data/corruptions/make_corrupted.py` with imagecorruptions 1.1.2, numpy 1.26.4,
scipy 1.12.0, scikit-image 0.22.0, opencv-python 4.11.0, pillow 13.0.0 and setuptools 65, in a
separate environment: the package needs NumPy 1. `python tests/data/corruptions/make_corrupted.py
figure` draws docs/figures/corruptions.png with tinyjax.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

GOLDEN = Path(__file__).parent / "corrupted.npz"
FIGURE = Path(__file__).parents[3] / "docs/figures/corruptions.png"
EXACT = ("defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression")
RANDOM = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "glass_blur",
    "motion_blur",
    "snow",
    "frost",
    "fog",
    "elastic_transform",
)
DRAWS = 100
SCENE = 0  # seed of the figure's scene


def scene(channels: int) -> np.ndarray:
    """uint8 [96, 128, 1] or [64, 80, 3]: smooth ground, a dark box, bright objects, fine texture;
    some of it black and some white.
    """
    height, width = {1: (96, 128), 3: (64, 80)}[channels]
    y, x = np.mgrid[:height, :width].astype(float)
    planes = []
    for c in range(channels):
        plane = 110 + 40 * np.sin(x / (17 + 5 * c) + y / 29) + 25 * np.cos(y / (11 + 3 * c))
        plane += 12 * np.sin(1.7 * x) * np.sin(1.3 * y) * (x > 0.6 * width)
        plane[(abs(x - 0.25 * width) < 9) & (abs(y - 0.3 * height) < 6)] = 20 * c
        for at_x, at_y, radius, level in (
            (0.7, 0.3, 7, 255),
            (0.4, 0.75, 4, 230),
            (0.85, 0.8, 3, 250),
        ):
            inside = (x - at_x * width) ** 2 + (y - at_y * height) ** 2 < radius**2
            plane[inside] = level - 60 * c * (radius == 4)
        planes.append(plane)
    return np.stack(planes, -1).clip(0, 255).astype(np.uint8)


def statistics(image: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """float64 [8]: mean; standard deviation; root mean square of the difference from the clean
    image, of differences 1 pixel across and down and 6 across and down, and between channels.
    """
    image = image.astype(float)
    difference = [
        image - clean,
        np.diff(image, axis=1),
        np.diff(image, axis=0),
        image[:, 6:] - image[:, :-6],
        image[6:] - image[:-6],
        image - image.mean(-1, keepdims=True),
    ]
    return np.array([image.mean(), image.std(), *(np.sqrt((d**2).mean()) for d in difference)])


def store() -> None:
    import imagecorruptions
    import skimage.filters
    from imagecorruptions import corruptions

    def gaussian(image, sigma, multichannel=False, **options):  # as before scikit-image 0.19
        axis = -1 if multichannel else None
        return skimage.filters.gaussian(image, sigma, channel_axis=axis, **options)

    corruptions.gaussian = gaussian
    np.random.seed(0)
    results = {}
    for channels in (1, 3):
        clean = scene(channels)

        def published(corruption, severity, clean=clean):
            # A gray image gives RGB; one channel of it is results.
            out = imagecorruptions.corrupt(clean, severity, corruption)
            return out[..., : clean.shape[2]]

        for corruption in EXACT:
            results[f"{corruption}.{channels}"] = np.stack(
                [published(corruption, s) for s in range(1, 6)]
            )
        for corruption in RANDOM:
            drawn = np.array(
                [
                    [statistics(published(corruption, s), clean) for _ in range(DRAWS)]
                    for s in range(1, 6)
                ]
            )
            results[f"{corruption}.{channels}"] = np.stack([drawn.mean(1), drawn.std(1, ddof=1)])
            print(
                corruption,
                channels,
                results[f"{corruption}.{channels}"][0].round(1).tolist(),
                flush=True,
            )
    np.savez_compressed(GOLDEN, **results)
    print(f"{GOLDEN}: {GOLDEN.stat().st_size / 1000:.0f} kB")


def sheet(image: np.ndarray) -> Image.Image:
    """All corruptions at severities 1, 3 and 5 of one image uint8 [H, W, 1], below the image."""
    from tinyjax.data.corruptions.corrupt import BENCHMARK_CORRUPTIONS, THERMAL_CORRUPTIONS, corrupt

    height, width = image.shape[:2]
    gap, line = 8, 16
    cell_x, cell_y = 3 * width + 2 + gap, height + line + 4
    names = (*BENCHMARK_CORRUPTIONS, *THERMAL_CORRUPTIONS)
    page = Image.new("L", (3 * cell_x + gap, cell_y * (1 + -(-len(names) // 3)) + gap), 255)
    draw = ImageDraw.Draw(page)
    font = ImageFont.load_default(13)
    legend = (
        "Severities 1, 3 and 5 of each corruption.\n\n"
        "First five rows: the benchmark.\nThe others: thermal cameras."
    )
    draw.text((gap + width + 16, gap + line), legend, 0, font)
    rows = [("original", [image])]
    rows += [
        (corruption, [corrupt(image, corruption, s, "sheet") for s in (1, 3, 5)])
        for corruption in names
    ]
    for k, (title, tiles) in enumerate(rows):
        cell = k + 2 if k else 0  # the image has its own row
        x, y = gap + cell % 3 * cell_x, gap + cell // 3 * cell_y
        draw.text((x, y - 4), title.replace("_", " "), 0, font)
        for i, tile in enumerate(tiles):
            page.paste(Image.fromarray(tile[..., 0]), (x + i * (width + 1), y + line - 2))
    return page


def figure() -> None:
    from tinyjax.data.synthetic import dataset

    page = sheet(dataset.load(1, (88, 104), seed=SCENE).inputs["image"][0])
    page.quantize(80).save(FIGURE, optimize=True)
    print(f"{FIGURE}: {FIGURE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    figure() if sys.argv[1:] == ["figure"] else store()
