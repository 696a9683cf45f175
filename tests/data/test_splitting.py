"""Groups of images by name, and their assignment to splits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyjax.data.splitting import divide, parse_fractions, parse_name
from tinyjax.errors import UserError

FRACTIONS = st.sampled_from([(0.8, 0.2), (0.5, 0.5), (0.7, 0.2, 0.1), (0.98, 0.01, 0.01)])
SEQUENCES = st.dictionaries(
    st.text("abc_", min_size=1, max_size=4), st.integers(1, 12), min_size=1, max_size=8
)


@pytest.mark.parametrize(
    ("name", "group", "number"),
    [
        ("seq1_000123.jpg", "./seq1_", 123),
        ("DJI_0001_0045.png", "./DJI_0001_", 45),
        ("frame00012.jpg", "./frame", 12),
        ("000012.jpg", "./", 12),
        ("a/b/7.png", "a/b/", 7),
        ("a.b.7.png", "./a.b.", 7),
        ("photo.jpg", "./photo", -1),
        ("3f9a1c20-frame_0007.png", "./frame_", 7),  # Label Studio
        ("seq1_0007_jpg.rf.0a1b2c3d4e.jpg", "./seq1_", 7),  # Roboflow
        ("dog_png.rf.0a1b2c3d4e.jpg", "./dog", -1),
    ],
)
def test_groups_of_names(name, group, number):
    assert parse_name(name) == (group, number)


@settings(max_examples=200, deadline=None)
@given(SEQUENCES, FRACTIONS, st.integers(0, 5), st.randoms(use_true_random=False))
def test_division_properties(sequences, fractions, seed, random):
    names = [f"{prefix}{i}.png" for prefix, n in sequences.items() for i in range(n)]
    if len(names) < len(fractions):
        with pytest.raises(UserError, match="cannot be divided into"):
            divide(names, fractions, seed)
        return
    division = divide(names, fractions, seed)
    assert set(division.splits) == set(range(len(fractions)))  # none is empty
    assert division.num_groups == len(sequences)
    assert division.contiguous == (len(sequences) < len(fractions))
    by_name = dict(zip(names, division.splits, strict=True))
    for prefix, n in sequences.items():
        splits = [by_name[f"{prefix}{i}.png"] for i in range(n)]
        if not division.contiguous:
            assert len(set(splits)) == 1
        assert splits == sorted(splits)  # blocks of consecutive frames
    shuffled = random.sample(names, len(names))
    again = divide(shuffled, fractions, seed).splits
    assert dict(zip(shuffled, again, strict=True)) == by_name


def test_single_images_have_the_given_fractions_and_depend_on_the_seed():
    names = [f"{'abcdefghij'[i // 10]}{'abcdefghij'[i % 10]}.png" for i in range(100)]
    splits = [divide(names, (0.7, 0.2, 0.1), seed).splits for seed in (0, 0, 1)]
    for one in splits:
        assert np.bincount(one).tolist() == [70, 20, 10]
    assert (splits[0] == splits[1]).all()
    assert (splits[0] != splits[2]).any()


def test_groups_of_equal_size_have_the_given_fractions():
    names = [f"{group}{i}.png" for group in "abcdefghij" for i in range(7)]
    assert np.bincount(divide(names, (0.8, 0.2), 0).splits).tolist() == [56, 14]


def test_one_sequence_is_cut_in_order_of_its_numbers():
    names = [f"frame{i}.png" for i in range(1, 21)]  # frame10 sorts before frame2 as text
    division = divide(names, (0.7, 0.2, 0.1), 3)
    assert division.contiguous
    assert division.splits.tolist() == [0] * 14 + [1] * 4 + [2] * 2


@pytest.mark.parametrize(
    "text", ["0.8", "0.8,0.1", "0.5,0.6", "1,0", "val", "0.8;0.2", "", "nan,1"]
)
def test_invalid_fractions_are_errors(text):
    with pytest.raises(UserError, match=r"give the fractions of train, val and.*--only NAME"):
        parse_fractions(text)


def test_fractions():
    assert parse_fractions("0.8,0.2") == (0.8, 0.2)
    assert parse_fractions("0.7, 0.2, 0.1") == (0.7, 0.2, 0.1)
