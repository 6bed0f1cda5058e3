"""PyTorch modules that are too long for their rooms. They import torch: a room imports one when it is asked for it."""
