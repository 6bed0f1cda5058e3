"""Anything to .caffemodel: rewritten batch normalization, other forks' numbers, weights of exported models."""
