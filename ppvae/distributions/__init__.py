"""Distributions that torch and Pyro lack, and likelihoods."""
