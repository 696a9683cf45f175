"""Training besides the loop in `tinyjax.train`: validation, reporters, sweeps, phases."""
