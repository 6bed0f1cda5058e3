"""The names of the files in which a training run keeps its records, beside its snapshots."""

from __future__ import annotations

from typing import NamedTuple


class RunRecordNames(NamedTuple):
    """The names of a run's records. `events` is a folder: TensorBoard takes all files of a folder as one run."""

    metrics: str
    curve_png: str
    curve_svg: str
    events: str


def run_record_names(name: str) -> RunRecordNames:
    """Return the names for a run whose snapshots are `<name>_iter_<N>`: each net of a shared folder has its own."""
    return RunRecordNames(f"{name}_metrics.csv", f"{name}_curve.png", f"{name}_curve.svg", f"{name}_events")
