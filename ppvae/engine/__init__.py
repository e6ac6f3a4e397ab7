"""Running a pair: batch, pair, particles, and the contract of model and guide."""
