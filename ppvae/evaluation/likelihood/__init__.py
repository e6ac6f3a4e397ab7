"""Estimates of log p(x) and of the inference gaps of a guide."""
