"""Values of the input "modality" of visible-infrared recognition."""

VISIBLE, INFRARED = 0, 1
MODALITIES = {"visible": VISIBLE, "infrared": INFRARED}  # by name
