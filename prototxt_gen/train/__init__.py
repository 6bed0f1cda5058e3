"""Training with the solver's own prototxt: one shell (progress, metrics, curves, snapshots, resume), two backends.

backend    what a backend is; Settings; `create` makes one by name
loop       `train`: the shell around a backend, iteration by iteration
run        `run`: checks, memory estimate, folders, resume, and the loop; what the command line calls
snapshots  complete pairs of .caffemodel and .solverstate, found, written and renamed
recorder   metrics.csv, TensorBoard events, the curve

Importing this package loads neither torch nor caffe.
"""

from __future__ import annotations
