"""How a pair is run: batch, pair, particles, and what a model and a guide promise."""
