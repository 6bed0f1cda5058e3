"""Evaluation and classification: one way from pictures to what a net takes, for every runtime that runs it.

own         what a net's own TEST data layer reads, and what it does to it
recipe      a picture to the views that the net sees: the middle, or ten crops
predictors  PyTorch, ONNX Runtime, real Caffe, and files that were converted: a batch in, scores out
scores      labels against scores: top-1, top-5, confusion
opening     options to all of these; what the command line calls

Importing this package loads nothing.
"""

from __future__ import annotations
