"""Synthetic scenes: reproducible images with exact boxes."""

import numpy as np
import pytest

from tinyjax.data.records import select_images
from tinyjax.data.synthetic import dataset
from tinyjax.data.synthetic.scenes import CLASSES, CLUTTER, draw_scene
from tinyjax.errors import UserError

SIZE = (128, 160)
NIGHT_AND_DAY = [0.0, 1.0]


def assert_same(a, b):
    np.testing.assert_array_equal(a.inputs["image"], b.inputs["image"])
    for name in ("boxes", "labels", "valid", "ignore"):
        x, y = getattr(a, name), getattr(b, name)
        slots = min(x.shape[1], y.shape[1])
        np.testing.assert_array_equal(x[:, :slots], y[:, :slots])


def test_image_depends_on_seed_and_index():
    three, six = dataset.load(3, seed=5), dataset.load(6, seed=5)
    assert_same(three, select_images(six, range(3)))
    assert three.names == six.names[:3]
    assert (six.inputs["image"][0] != six.inputs["image"][1]).mean() > 0.5
    assert (dataset.load(1, seed=6).inputs["image"][0] != six.inputs["image"][0]).mean() > 0.5


def test_split_shapes_dtypes_and_ranges():
    split = dataset.load(20, size=SIZE)
    assert split.inputs["image"].shape == (20, *SIZE, 1)
    assert split.inputs["image"].dtype == np.uint8
    assert split.classes == CLASSES
    assert split.boxes.dtype == np.float32
    assert not split.ignore.any()
    counts = split.valid.sum(1)
    assert counts.min() >= 2
    assert counts.max() <= 8
    assert set(split.labels[split.valid]) == {0, 1, 2}
    boxes = split.boxes[split.valid]
    assert (boxes >= 0).all()
    assert (boxes <= (160, 128, 160, 128)).all()
    assert (boxes[:, 2:] - boxes[:, :2] >= 3).all()
    assert not split.boxes[~split.valid].any()
    assert not split.labels[~split.valid].any()
    assert len(split.truth["annotations"]) == counts.sum()
    spans = np.ptp(split.inputs["image"].reshape(20, -1).astype(int), axis=1)
    assert (spans == 255).all()  # automatic gain fills the range


@pytest.mark.parametrize("size", [(64, 64), (96, 200)])
def test_boxes_are_inside_images_of_other_sizes(size):
    split = dataset.load(12, size=size, seed=2)
    assert split.inputs["image"].shape == (12, *size, 1)
    assert (split.boxes[split.valid] <= (size[1], size[0], size[1], size[0])).all()
    assert (split.valid.sum(1) >= 2).all()


def test_larger_images_have_more_objects():
    few = dataset.load(6, size=SIZE).valid.sum()
    assert dataset.load(6, size=(256, 320)).valid.sum() > 1.5 * few


@pytest.mark.parametrize("day", NIGHT_AND_DAY)
def test_boxes_are_the_exact_extent_of_changed_pixels(day):
    """The pixels that differ with and without a single object span its box."""
    checked = 0
    for index in range(10):
        scene = draw_scene(3, index, SIZE)
        _, boxes = dataset.render_temperature(scene, SIZE, day, 1.0)
        objects = [item for item in scene.items if item.label != CLUTTER]
        assert len(objects) == len(boxes)
        bare, none = dataset.render_temperature(scene._replace(items=()), SIZE, day, 1.0)
        assert none.shape == (0, 4)
        for item, box in zip(objects, boxes, strict=True):
            field, box_alone = dataset.render_temperature(
                scene._replace(items=(item,)), SIZE, day, 1.0
            )
            rows, columns = np.nonzero(field != bare)
            span = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert span == box.tolist() == box_alone[0].tolist()
            checked += 1
    assert checked > 40


def test_object_changes_no_pixel_outside_its_box():
    spanned = 0
    for index in range(12):
        scene = draw_scene(4, index, SIZE)
        field, boxes = dataset.render_temperature(scene, SIZE, 0.0, 1.0)
        objects = [i for i, item in enumerate(scene.items) if item.label != CLUTTER]
        for i, box in zip(objects, boxes.astype(int), strict=True):
            others = scene.items[:i] + scene.items[i + 1 :]
            without, _ = dataset.render_temperature(scene._replace(items=others), SIZE, 0.0, 1.0)
            changed = field != without
            x1, y1, x2, y2 = box
            assert changed[y1:y2, x1:x2].sum() == changed.sum()
            # MAX_OCCLUSION keeps most of an object visible
            assert changed.sum() > 0.15 * (x2 - x1) * (y2 - y1)
            rows, columns = changed.any(1).nonzero()[0], changed.any(0).nonzero()[0]
            spanned += [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1] == box.tolist()
    assert spanned > 30  # the others are partly hidden


@pytest.fixture(scope="module")
def plain():
    return dataset.load(4, seed=1)


@pytest.mark.parametrize("name", dataset.SHIFTS)
def test_shift_keeps_boxes_and_changes_pixels(name, plain):
    shifted = dataset.load(4, seed=1, **dataset.SHIFTS[name])
    np.testing.assert_array_equal(plain.boxes, shifted.boxes)
    np.testing.assert_array_equal(plain.labels, shifted.labels)
    assert plain.truth == shifted.truth
    difference = plain.inputs["image"].astype(float) - shifted.inputs["image"]
    assert np.sqrt(np.mean(difference**2, axis=(1, 2, 3))).min() > 4


def test_zero_clutter_leaves_ground_and_objects():
    scene = draw_scene(0, 0, SIZE)
    objects = tuple(item for item in scene.items if item.label != CLUTTER)
    assert 0 < len(objects) < len(scene.items)
    cleared, _ = dataset.render_temperature(scene, SIZE, 0.0, 0.0)
    alone, _ = dataset.render_temperature(scene._replace(items=objects), SIZE, 0.0, 1.0)
    np.testing.assert_array_equal(cleared, alone)


def contrast(day):
    """Mean temperature of each person relative to its background, in K."""
    contrasts = []
    for index in range(25):
        scene = draw_scene(7, index, SIZE)
        bare, _ = dataset.render_temperature(scene._replace(items=()), SIZE, day, 1.0)
        for item in scene.items:
            if item.label == CLASSES.index("person"):
                field, _ = dataset.render_temperature(scene._replace(items=(item,)), SIZE, day, 1.0)
                contrasts.append((field - bare)[field != bare].mean())
    return np.array(contrasts)


def test_people_are_warm_by_night_and_have_low_or_negative_contrast_by_day():
    night, day = contrast(0.0), contrast(1.0)
    assert (night > 0).all()
    assert np.median(night) > 6
    assert np.median(np.abs(day)) < 0.5 * np.median(night)
    assert 0.2 < np.mean(day < 0) < 0.9


def test_noise_pattern_and_blur_have_the_given_strength():
    flat = np.full((200, 300), 10, np.float32)
    step = np.zeros((200, 300), np.float32)
    step[:, 150:] = 100

    def edge_width(image):
        columns = image.mean(0)
        return int(((columns > 10) & (columns < 245)).sum())

    def sense(field, **strengths):
        rng = np.random.default_rng(0)
        off = {"noise": 0.0, "pattern": 0.0, "blur": 0.0}
        return dataset.simulate_sensor(field, rng, **{**off, **strengths}).astype(float)

    assert not sense(flat).any()
    white, lines = sense(flat, noise=1.0), sense(flat, pattern=1.0)

    # A line pattern is a sum of row and column offsets; white noise is mostly residual.
    def residual(image):
        image = image - image.mean(0) - image.mean(1, keepdims=True) + image.mean()
        return image.std()

    assert residual(lines) < 0.1 * lines.std()
    assert residual(white) > 0.95 * white.std()
    assert edge_width(sense(step)) == 0
    assert edge_width(sense(step, blur=1.0)) < edge_width(sense(step, blur=3.0)) < 20


def test_invalid_arguments_are_errors():
    with pytest.raises(UserError, match=r"no strength 'nois'.*did you mean 'noise'"):
        dataset.load(1, nois=1.0)
    for arguments in ({"n": 0}, {"n": 1, "seed": -1}, {"n": 1, "size": (32, 160)}):
        with pytest.raises(UserError, match="give n >= 1, seed >= 0 and a size of at least"):
            dataset.load(**arguments)
