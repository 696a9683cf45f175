"""Data sets: layouts of files, images, batches, augmentation, corruptions. Knows no network."""
