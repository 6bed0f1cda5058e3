"""Activation layers: elementwise functions, and scales and biases per channel."""
