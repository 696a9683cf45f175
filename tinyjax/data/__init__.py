"""Data sets: layouts of files, images, batches, augmentation, corruptions; without networks."""
