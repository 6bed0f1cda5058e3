"""A table of small nets as users write them, one for each behaviour of Caffe.

tests/layers/test_behaviours.py runs all of them.
"""

from __future__ import annotations

from tests.behaviours import (
    channels,
    corners,
    detection,
    elementwise,
    forks,
    in_place,
    nets,
    recurrent,
    refusals,
    stored,
    structural,
    windows,
)

BEHAVIOURS = (
    *windows.BEHAVIOURS,
    *channels.BEHAVIOURS,
    *elementwise.BEHAVIOURS,
    *structural.BEHAVIOURS,
    *recurrent.BEHAVIOURS,
    *detection.BEHAVIOURS,
    *forks.BEHAVIOURS,
    *in_place.BEHAVIOURS,
    *nets.BEHAVIOURS,
    *stored.BEHAVIOURS,
    *refusals.BEHAVIOURS,
    *corners.BEHAVIOURS,
)
