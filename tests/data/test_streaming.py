"""Sets that stay on disk: the same images, in an order of seed and step alone."""

import io
import math
from itertools import islice

import numpy as np
import pytest
from PIL import Image

from tests.data.layouts import source_files
from tinyjax.data import classification, detection, images, streaming
from tinyjax.data.layouts.arrayrecord import Stored
from tinyjax.errors import UserError
from tinyjax.tasks import classify


def photo(seed, shape=(60, 80)):
    """Smooth colors, as a camera's: JPEG keeps them."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    rng = np.random.default_rng(seed)
    waves = [np.sin(x * rng.uniform(0, 0.2) + y * rng.uniform(0, 0.2)) for _ in range(3)]
    return (127 + 100 * np.stack(waves, -1)).astype(np.uint8)


def jpeg(pixels, **more):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=95, **more)
    return stream.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """ImageNet-mini's layout, and DomainNet's lists over the same files."""
    root = tmp_path_factory.mktemp("mini")
    for split, many in (("train", 5), ("val", 2)):
        lines = []
        for number, wnid in enumerate(("n01440764", "n01443537")):
            place = root / split / wnid
            place.mkdir(parents=True)
            for k in range(many):
                name = f"{wnid}_{k}.JPEG"
                (place / name).write_bytes(jpeg(photo((number, k, len(split)))))
                lines.append(f"{split}/{wnid}/{name} {number}")
        (root / f"real_{split}.txt").write_text("\n".join(lines) + "\n")
    return root


@pytest.mark.parametrize("layout", ["folder", "list"])
def test_left_on_disk_it_is_the_same_set(folder, layout):
    name = "train" if layout == "folder" else "real_train"
    load = lambda **more: classification.load(folder, name, (32, 32), layout=layout, **more)  # noqa: E731
    whole, left = load(), load(stream=True)
    assert isinstance(left.images, streaming.Images)
    assert left.images.shape == whole.images.shape == (10, 32, 32, 3)
    assert (left.names, left.classes) == (whole.names, whole.classes)
    np.testing.assert_array_equal(left.labels, whole.labels)
    np.testing.assert_array_equal(left.images[np.array([7, 0, 7])], whole.images[[7, 0, 7]])
    np.testing.assert_array_equal(left.images[3], whole.images[3])


def test_a_list_names_folders_as_classes(folder, tmp_path):
    split = classification.load(folder, "real_val", (8, 8), layout="list")
    assert split.classes == ("n01440764", "n01443537")
    assert split.labels.tolist() == [0, 0, 1, 1]
    (tmp_path / "odd.txt").write_text("photo.jpg 3\n")
    with pytest.raises(UserError, match=r"odd\.txt, line 1: 'photo.jpg 3': give <path with a fol"):
        classification.load(tmp_path, "odd", (8, 8), layout="list")
    with pytest.raises(UserError, match=r"split 'real_test'; .*known: real_train, real_val"):
        classification.load(folder, "real_test", (8, 8), layout="list")


def test_boxes_left_on_disk(tmp_path):
    root = source_files.coco(tmp_path / "set", {"train": 5})
    load = lambda **more: detection.load(root, "train", size=(48, 64), **more)  # noqa: E731
    whole, left = load(), load(stream=True)
    for name in whole._fields:
        one, other = getattr(whole, name), getattr(left, name)
        if name == "images":
            other = other[np.arange(5)]
        if name == "truth":
            assert one == other
        else:
            np.testing.assert_array_equal(one, other)
    with pytest.raises(UserError, match=r"data\.stream: give data\.common\.size"):
        detection.load(root, "train", stream=True)
    packed = source_files.zipped(root, tmp_path / "set.zip")
    with pytest.raises(UserError, match="cannot be left in a zip"):
        detection.load(packed, "train", size=(48, 64), stream=True)


def number(i, rng):
    return {"number": np.int64(i), "draw": rng.integers(1 << 30)}


def test_the_order_is_of_seed_and_step():
    take = lambda start, many: [*islice(streaming.batches(number, 10, 4, 7, start), many)]  # noqa: E731
    whole = take(0, 10)
    for at, rows in enumerate(take(6, 3)):
        for name in rows:
            np.testing.assert_array_equal(rows[name], whole[6 + at][name])
    seen = np.concatenate([rows["number"] for rows in whole])
    for epoch in range(4):
        assert sorted(seen[10 * epoch : 10 * epoch + 10]) == [*range(10)]
    assert seen[:10].tolist() != seen[10:20].tolist()
    # the same sample is drawn otherwise the next time
    assert len({int(d) for rows in whole for d in rows["draw"]}) == 40
    other = next(iter(streaming.batches(number, 10, 4, 8)))
    assert other["number"].tolist() != whole[0]["number"].tolist()


def test_a_process_decodes_its_own_rows_alone():
    decoded = set()

    def noted(i, rng):
        decoded.add(i)
        return number(i, rng)

    whole = [*islice(streaming.batches(number, 1000, 4, 7), 250)]  # an epoch
    own = [*islice(streaming.batches(noted, 1000, 4, 7, 2, rows=[3, 0]), 3)]
    for batch, rows in zip(whole[2:], own, strict=False):
        for name in rows:
            np.testing.assert_array_equal(rows[name], batch[name][[3, 0]])
    assert decoded <= {int(n) for batch in whole[2:] for n in batch["number"][[3, 0]]}


@pytest.mark.slow
def test_workers_give_the_same():
    ours, theirs = (streaming.batches(number, 10, 4, 7, 2, workers) for workers in (0, 2))
    for _ in range(5):
        one, other = next(ours), next(theirs)
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


def test_random_regions():
    rng, shape, aspect = np.random.default_rng(0), (300, 400), math.log(16 / 9)
    parts, ratios = [], []
    for _ in range(4000):
        top, left, height, width = streaming.random_region(shape, 0.2, aspect, rng)
        assert 0 <= top <= top + height <= 300
        assert 0 <= left <= left + width <= 400
        parts.append(height * width / 120_000)
        ratios.append(width / height)
    # of 20,000 draws of torchvision 0.28's RandomResizedCrop.get_params
    np.testing.assert_allclose(np.percentile(parts, (10, 50, 90)), (0.257, 0.484, 0.760), atol=0.02)
    np.testing.assert_allclose(
        np.percentile(ratios, (10, 50, 90)), (0.817, 1.058, 1.278), atol=0.02
    )
    # where nothing fits: the center, as near the wanted shapes as can be
    assert streaming.random_region((10, 100), 0.9, aspect, rng) == (0, 43, 10, 13)
    assert streaming.random_region((100, 10), 0.9, aspect, rng) == (43, 0, 13, 10)


def test_a_view_is_a_part_of_the_file_decoded_no_finer_than_needed():
    pixels = photo(3, (400, 600))
    place = Stored("photo", jpeg(pixels))
    for part in ((0, 0, 400, 600), (40, 80, 320, 400), (100, 200, 64, 64)):
        top, left, height, width = part
        view = images.view(place, (64, 64), lambda _, part=part: part, 3)
        whole = Image.fromarray(pixels[top : top + height, left : left + width])
        wanted = np.asarray(whole.resize((64, 64), Image.Resampling.BILINEAR), float)
        assert view.shape == (64, 64, 3)
        assert np.abs(view - wanted).mean() < 3
    asked = []
    whole = images.picture(place, 3, enough=lambda shape: asked.append(shape) or (100, 100))
    assert asked == [(400, 600)]
    assert whole.size == (150, 100)  # a quarter, in either direction at least what was asked
    assert images.picture(place, 3, enough=lambda _: (101, 100)).size == (300, 200)
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "PNG")
    view = images.view(Stored("photo", png.getvalue()), (64, 64), lambda _: (100, 200, 64, 64), 3)
    np.testing.assert_array_equal(view, pixels[100:164, 200:264])


def test_a_turned_photo_is_cut_as_a_viewer_shows_it():
    pixels = photo(4, (400, 600))
    exif = Image.Exif()
    exif[0x0112] = 6  # rows of the file are columns of the picture
    place = Stored("turned", jpeg(pixels, exif=exif))
    upright = images.read(place, 3)
    assert upright.shape == (600, 400, 3)
    view = images.view(place, (50, 50), lambda shape: (0, 0, shape[0] // 2, shape[1]), 3)
    wanted = Image.fromarray(upright[:300]).resize((50, 50), Image.Resampling.BILINEAR)
    assert np.abs(view - np.asarray(wanted, float)).mean() < 3


def test_the_center():
    """0.875 of the largest window of that shape, and where its pixels come from."""
    ramp = np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None], (100, 200, 1))
    image, scale, offset = images.fit(ramp, (70, 70), "center")
    np.testing.assert_allclose(scale, [0.8, 0.8])  # 87.5 pixels become 70
    np.testing.assert_allclose(offset, [-(100 - 43.75) * 0.8, -(50 - 43.75) * 0.8], rtol=1e-5)
    np.testing.assert_allclose(image[0, [0, 69], 0], [56.5, 143], atol=1)
    with pytest.raises(UserError, match="fit = 'center': boxes would lie outside"):
        detection.load("anywhere", "train", size=(8, 8), fit="center")


def test_views_of_a_class_are_drawn_by_their_own_generator(folder):
    split = classification.load(folder, "train", (32, 32), stream=True)
    config = classify_config()
    sample = classify.element(split, config)
    one, again, other = (sample(6, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert (one["images"].shape, one["images"].dtype) == ((24, 24, 3), np.uint8)
    assert (int(one["labels"]), float(one["rarity"])) == (1, pytest.approx(0.2))
    np.testing.assert_array_equal(one["images"], again["images"])
    assert (one["images"] != other["images"]).any()


def classify_config():
    from tinyjax.config import classifier

    config = classifier()
    config.crop_size = (24, 24)
    return config


def test_what_is_broken_says_so_when_its_turn_comes(folder, tmp_path):
    place = tmp_path / "train" / "cat"
    place.mkdir(parents=True)
    (place / "a.jpg").write_bytes(b"nothing")
    (tmp_path / "train" / "dog").mkdir()
    (tmp_path / "train" / "dog" / "b.jpg").write_bytes(jpeg(photo(0)))
    split = classification.load(tmp_path, "train", (32, 32), stream=True)
    assert split.images[1].shape == (32, 32, 3)
    with pytest.raises(UserError, match=r"cat/a\.jpg: not a readable image"):
        split.images[0]
    rows = streaming.batches(classify.element(split, classify_config()), 2, 2, 0)
    with pytest.raises(UserError, match=r"cat/a\.jpg: not a readable image"):
        next(rows)
