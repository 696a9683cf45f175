"""Helpers of figures."""

from tinyjax.reporting.plotting import label_text


def test_long_names_are_shortened_in_the_middle():
    assert label_text("person", 20) == "person"
    assert label_text("emergency_vehicle_of_type_07", 20) == "emergency_\u2026f_type_07"
    assert label_text("$") == r"\$"
