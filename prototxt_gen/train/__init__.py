"""Training from a solver prototxt: one training loop (progress, metrics, curves, snapshots, resume) for two backends.

backend         the interface of a backend; Settings; `create` returns a backend by name
training_run    `run`: checks, memory estimate, folders, resume, and the loop; the command line calls it
training_loop   `train`: runs a backend iteration by iteration
snapshots       complete pairs of .caffemodel and .solverstate: finding, writing and renaming them
run_records     metrics, TensorBoard events, and the loss curve

Importing this package loads neither torch nor caffe.
"""

from __future__ import annotations
