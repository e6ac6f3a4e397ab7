"""Bounds of log p(x) and losses of a pair."""
