"""What `tinyjax.train` consists of besides its loop: validation, reporters, sweeps, phases."""
