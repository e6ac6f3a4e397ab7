"""Tests run in parallel processes, each with one thread, so that they do not slow each other down."""

import torch

torch.set_num_threads(1)
