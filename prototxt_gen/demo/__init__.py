"""The main job on real data, end to end: emit, make data, train, convert, verify, evaluate, report.

pictures  where the images come from: Fashion-MNIST from Debian's package, else MNIST digits from a wheel
zoo       all nets of the zoo: emitted, checked, measured, drawn
steps     one function for each step; each calls what the commands call
run       the steps in order, with their times; what the command line calls

Importing this package loads nothing.
"""

from __future__ import annotations
