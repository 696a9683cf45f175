"""Sets that stay on disk: the same images, in an order that depends on seed and step."""

import io
import math
from itertools import islice

import numpy as np
import pytest
from PIL import Image

from tests.data.layouts import source_files
from tests.data.loaders import load_classification, load_detection
from tests.miniatures import jpeg, photo
from tinyjax.data import images, streaming
from tinyjax.data.layouts.arrayrecord import ImageBytes
from tinyjax.errors import UserError
from tinyjax.tasks import classify


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """ImageNet-mini's layout, and DomainNet's lists over the same files."""
    root = tmp_path_factory.mktemp("mini")
    for split, count in (("train", 5), ("val", 2)):
        lines = []
        for number, wnid in enumerate(("n01440764", "n01443537")):
            file = root / split / wnid
            file.mkdir(parents=True)
            for k in range(count):
                name = f"{wnid}_{k}.JPEG"
                (file / name).write_bytes(jpeg(photo((number, k, len(split)))))
                lines.append(f"{split}/{wnid}/{name} {number}")
        (root / f"real_{split}.txt").write_text("\n".join(lines) + "\n")
    return root


@pytest.mark.parametrize("layout", ["folder", "list"])
def test_streamed_classification_split_equals_loaded_split(folder, layout):
    name = "train" if layout == "folder" else "real_train"
    load = lambda **more: load_classification(folder, name, (32, 32), layout=layout, **more)  # noqa: E731
    full, streamed_split = load(), load(stream=True)
    assert isinstance(streamed_split.inputs["image"], streaming.Images)
    assert streamed_split.inputs["image"].shape == full.inputs["image"].shape == (10, 32, 32, 3)
    assert (streamed_split.names, streamed_split.classes) == (full.names, full.classes)
    np.testing.assert_array_equal(streamed_split.labels, full.labels)
    streamed, loaded = streamed_split.inputs["image"], full.inputs["image"]
    np.testing.assert_array_equal(streamed[np.array([7, 0, 7])], loaded[[7, 0, 7]])
    np.testing.assert_array_equal(streamed[3], loaded[3])


def test_list_layout_uses_folders_as_classes(folder, tmp_path):
    split = load_classification(folder, "real_val", (8, 8), layout="list")
    assert split.classes == ("n01440764", "n01443537")
    assert split.labels.tolist() == [0, 0, 1, 1]
    (tmp_path / "odd.txt").write_text("photo.jpg 3\n")
    with pytest.raises(UserError, match=r"odd\.txt, line 1: 'photo.jpg 3': give <path with a fol"):
        load_classification(tmp_path, "odd", (8, 8), layout="list")
    with pytest.raises(UserError, match=r"split 'real_test'; .*known: real_train, real_val"):
        load_classification(folder, "real_test", (8, 8), layout="list")


def test_streamed_detection_split_equals_loaded_split(tmp_path):
    root = source_files.coco(tmp_path / "set", {"train": 5})
    load = lambda **more: load_detection(root, "train", size=(48, 64), **more)  # noqa: E731
    full, streamed_split = load(), load(stream=True)
    for name in full._fields:
        one, other = getattr(full, name), getattr(streamed_split, name)
        if name == "inputs":
            one, other = one["image"], other["image"][np.arange(5)]
        if name == "truth":
            assert one == other
        else:
            np.testing.assert_array_equal(one, other)
    with pytest.raises(UserError, match=r"data\.stream: give data\.common\.size"):
        load_detection(root, "train", stream=True)
    packed = source_files.zip_folder(root, tmp_path / "set.zip")
    with pytest.raises(UserError, match="cannot read images from a zip"):
        load_detection(packed, "train", size=(48, 64), stream=True)


def number(i, rng):
    return {"number": np.int64(i), "draw": rng.integers(1 << 30)}


def test_order_depends_on_seed_and_step():
    take = lambda start, count: [*islice(streaming.batches(number, 10, 4, 7, start), count)]  # noqa: E731
    full = take(0, 10)
    for step, rows in enumerate(take(6, 3)):
        for name in rows:
            np.testing.assert_array_equal(rows[name], full[6 + step][name])
    seen = np.concatenate([rows["number"] for rows in full])
    for epoch in range(4):
        assert sorted(seen[10 * epoch : 10 * epoch + 10]) == [*range(10)]
    assert seen[:10].tolist() != seen[10:20].tolist()
    # each use of a sample has its selected random numbers
    assert len({int(d) for rows in full for d in rows["draw"]}) == 40
    other = next(iter(streaming.batches(number, 10, 4, 8)))
    assert other["number"].tolist() != full[0]["number"].tolist()


def test_only_requested_rows_are_decoded():
    decoded = set()

    def recorded(i, rng):
        decoded.add(i)
        return number(i, rng)

    full = [*islice(streaming.batches(number, 1000, 4, 7), 250)]  # an epoch
    selected = [*islice(streaming.batches(recorded, 1000, 4, 7, 2, rows=[3, 0]), 3)]
    for batch, rows in zip(full[2:], selected, strict=False):
        for name in rows:
            np.testing.assert_array_equal(rows[name], batch[name][[3, 0]])
    assert decoded <= {int(n) for batch in full[2:] for n in batch["number"][[3, 0]]}


@pytest.mark.slow
def test_workers_give_the_same_batches():
    threads, processes = (streaming.batches(number, 10, 4, 7, 2, workers) for workers in (0, 2))
    for _ in range(5):
        one, other = next(threads), next(processes)
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


def test_random_regions():
    rng, shape, aspect = np.random.default_rng(0), (300, 400), math.log(16 / 9)
    fractions, ratios = [], []
    for _ in range(4000):
        top, streamed_split, height, width = streaming.random_region(shape, 0.2, aspect, rng)
        assert 0 <= top <= top + height <= 300
        assert 0 <= streamed_split <= streamed_split + width <= 400
        fractions.append(height * width / 120_000)
        ratios.append(width / height)
    # of 20,000 draws of torchvision 0.28's RandomResizedCrop.get_params
    np.testing.assert_allclose(
        np.percentile(fractions, (10, 50, 90)), (0.257, 0.484, 0.760), atol=0.02
    )
    np.testing.assert_allclose(
        np.percentile(ratios, (10, 50, 90)), (0.817, 1.058, 1.278), atol=0.02
    )
    # where nothing fits: the central region of the nearest aspect
    assert streaming.random_region((10, 100), 0.9, aspect, rng) == (0, 43, 10, 13)
    assert streaming.random_region((100, 10), 0.9, aspect, rng) == (43, 0, 13, 10)


def test_region_is_decoded_at_sufficient_size():
    pixels = photo(3, (400, 600))
    file = ImageBytes("photo", jpeg(pixels))
    for region in ((0, 0, 400, 600), (40, 80, 320, 400), (100, 200, 64, 64)):
        top, streamed_split, height, width = region
        view = images.read_region(file, (64, 64), lambda _, region=region: region, 3)
        full = Image.fromarray(pixels[top : top + height, streamed_split : streamed_split + width])
        expected = np.asarray(full.resize((64, 64), Image.Resampling.BILINEAR), float)
        assert view.shape == (64, 64, 3)
        assert np.abs(view - expected).mean() < 3
    shapes = []
    full = images.decode_image(file, 3, min_size=lambda shape: shapes.append(shape) or (100, 100))
    assert shapes == [(400, 600)]
    assert full.size == (150, 100)  # a quarter, step least the requested size in both directions
    assert images.decode_image(file, 3, min_size=lambda _: (101, 100)).size == (300, 200)
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "PNG")
    view = images.read_region(
        ImageBytes("photo", png.getvalue()), (64, 64), lambda _: (100, 200, 64, 64), 3
    )
    np.testing.assert_array_equal(view, pixels[100:164, 200:264])


def test_region_of_a_rotated_photo():
    pixels = photo(4, (400, 600))
    exif = Image.Exif()
    exif[0x0112] = 6  # rows of the file are columns of the picture
    file = ImageBytes("turned", jpeg(pixels, exif=exif))
    upright = images.read_image(file, 3)
    assert upright.shape == (600, 400, 3)
    view = images.read_region(file, (50, 50), lambda shape: (0, 0, shape[0] // 2, shape[1]), 3)
    expected = Image.fromarray(upright[:300]).resize((50, 50), Image.Resampling.BILINEAR)
    assert np.abs(view - np.asarray(expected, float)).mean() < 3


def test_center_fit():
    """0.875 of the largest window of that shape: pixels, scale and offset."""
    ramp = np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None], (100, 200, 1))
    image, scale, offset = images.fit_image(ramp, (70, 70), "center")
    np.testing.assert_allclose(scale, [0.8, 0.8])  # 87.5 pixels become 70
    np.testing.assert_allclose(offset, [-(100 - 43.75) * 0.8, -(50 - 43.75) * 0.8], rtol=1e-5)
    np.testing.assert_allclose(image[0, [0, 69], 0], [56.5, 143], atol=1)
    with pytest.raises(UserError, match="fit = 'center': boxes may lie outside"):
        load_detection("anywhere", "train", size=(8, 8), fit="center")


def test_views_depend_on_the_generator(folder):
    split = load_classification(folder, "train", (32, 32), stream=True)
    config = classify_config()
    sample = classify.stream_source(split, config)
    one, again, other = (sample(6, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert (one["image"].shape, one["image"].dtype) == ((24, 24, 3), np.uint8)
    assert (int(one["labels"]), float(one["rarity"])) == (1, pytest.approx(0.2))
    np.testing.assert_array_equal(one["image"], again["image"])
    assert (one["image"] != other["image"]).any()


def classify_config():
    from tinyjax.config import classifier

    config = classifier()
    config.crop_size = (24, 24)
    return config


def test_unreadable_streamed_image_raises_on_access(folder, tmp_path):
    file = tmp_path / "train" / "cat"
    file.mkdir(parents=True)
    (file / "a.jpg").write_bytes(b"nothing")
    (tmp_path / "train" / "dog").mkdir()
    (tmp_path / "train" / "dog" / "b.jpg").write_bytes(jpeg(photo(0)))
    split = load_classification(tmp_path, "train", (32, 32), stream=True)
    assert split.inputs["image"][1].shape == (32, 32, 3)
    with pytest.raises(UserError, match=r"cat/a\.jpg: not a readable image"):
        split.inputs["image"][0]
    rows = streaming.batches(classify.stream_source(split, classify_config()), 2, 2, 0)
    with pytest.raises(UserError, match=r"cat/a\.jpg: not a readable image"):
        next(rows)
