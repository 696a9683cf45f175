"""Tables and ranges of values as text."""

import numpy as np
import pytest

from tinyjax.run.text import text_table, value_range


def test_numbers_are_aligned_right_and_names_left():
    rows = [
        {"suite": "val", "AP": 0.5, "images": 1200},
        {"suite": "night", "AP": np.float32(0.25), "images": 7},
    ]
    assert text_table(rows).split("\n") == [
        "suite     AP  images",
        "val    0.500    1200",
        "night  0.250       7",
    ]


def test_columns_are_chosen_and_missing_values_are_blank():
    rows = [{"a": 1, "b": 2, "c": "3 of 4"}, {"a": None, "c": "10 of 4"}]
    assert text_table(rows, ("c", "a")).split("\n") == ["      c  a", " 3 of 4  1", "10 of 4"]


@pytest.mark.parametrize(
    ("value", "text"), [(float("nan"), "nan"), (-0.5, "-0.500"), (True, "True"), (3, "3")]
)
def test_values_as_text(value, text):
    assert text_table([{"value": value}]).split("\n")[1].strip() == text


def test_float_format():
    assert text_table([{"rate": 0.5}], float_format=".0%").split("\n")[1] == " 50%"


def test_a_table_without_rows_has_titles_only():
    assert text_table([], ("a", "b")) == "a  b"
    assert text_table([]) == ""


@pytest.mark.parametrize(
    ("values", "text"),
    [([0.5, 0.25], "0.250 to 0.500"), ([0.5], "0.500"), ([0.5, 0.50001], "0.500")],
)
def test_value_range(values, text):
    assert value_range(values) == text


def test_value_range_with_another_format():
    assert value_range([1000, 2_500_000], ",.0f") == "1,000 to 2,500,000"
