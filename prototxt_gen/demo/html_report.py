"""The demo's report: one page that needs nothing beside itself. Here is what it shows; the template lays it out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from prototxt_gen.analysis import analyse
from prototxt_gen.common.errors import PrototxtGenError
from prototxt_gen.demo.commands import commands
from prototxt_gen.demo.line_charts import Chart, Line, chart, smoothed, thinned
from prototxt_gen.demo.steps import Format, Story, Trained, differing
from prototxt_gen.draw.drawing import drawing, short
from prototxt_gen.draw.html import html_text as drawing_text
from prototxt_gen.evaluate.attention_maps import Mask, Seen, Tile, overlay, shown
from prototxt_gen.net.prototxt_reader import read
from prototxt_gen.net.render import render
from prototxt_gen.train import metrics_csv

if TYPE_CHECKING:
    from converters.verification.verify import RuntimeOutcome, VerificationReport
    from prototxt_gen.evaluate.scores import Evaluation

BLUE, ORANGE, GREEN = "#2f6fd0", "#e8590c", "#2b8a3e"
SIDE = 112
"""Pixels of a small picture's side, at least."""
CHANNELS = 6
STEP_NAMES = {
    "zoo": "Emit the zoo",
    "data": "Make data sets",
    "emit": "Emit the net",
    "train": "Train",
    "convert": "Convert",
    "verify": "Verify",
    "evaluate": "Evaluate",
    "report": "Masks and report",
}


def html_text(story: Story, templates: str = "") -> str:
    """Return the page. PrototxtGenError where the story has no evaluation to tell of."""
    ran = story.ran()
    if not ran or story.trained is None or story.verification is None or ran[0].evaluation is None:
        raise PrototxtGenError("there is nothing to report: the demo has not come to its end")
    return render("report.html.j2", templates, **_context(story, story.trained, story.verification, ran[0].evaluation))


def _context(story: Story, trained: Trained, verification: VerificationReport, found: Evaluation) -> dict[str, Any]:
    net = read(story.net / "deploy.prototxt")
    analysis = analyse(net)
    rows = list(metrics_csv.read_metrics(trained.folder / "metrics.csv"))
    return {
        "net": net.name,
        "layers": len(net.layers),
        "parameters": f"{analysis.parameters:,}",
        "macs": short(analysis.macs),
        "data": story.pictures.name,
        "origin": story.pictures.origin,
        "images": [f"{count:,}" for count in story.sets.count],
        "accuracy": f"{found.top(1):.2%}",
        "differing": differing(story.formats),
        "iterations": f"{trained.iterations:,}",
        "minutes": f"{trained.seconds / 60:.1f}",
        "speed": f"{_trained_images(story) / max(trained.seconds, 1e-9):,.0f}",
        "worst": f"{verification.worst:.1e}",
        "verified": verification.verified,
        "steps": list(_steps(story)),
        "charts": curves(rows),
        "formats": [_format(one) for one in story.formats],
        "confusion": confusion(found, story.sets.names),
        "verification": verification_rows(verification),
        "blobs": blob_table(verification),
        "gallery": gallery(story.seen),
        "closeup": closeup(story.seen),
        "mistakes": [{"tile": _picture(one), "label": one.title, "told": one.caption} for one in story.mistakes],
        "drawing": drawing_text(drawing(analysis)),
        "zoo": [_member(one) for one in story.zoo],
        "commands": commands(story, trained),
    }


def _trained_images(story: Story) -> int:
    from prototxt_gen.demo.steps import BATCH

    return story.trained.iterations * BATCH if story.trained else 0


def _steps(story: Story) -> Iterator[dict[str, Any]]:
    total = sum(story.seconds.values()) or 1.0
    for name, seconds in story.seconds.items():
        yield {"name": STEP_NAMES[name], "seconds": _duration(seconds), "share": f"{100 * seconds / total:.1f}"}


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds // 60)} min {seconds % 60:.0f} s"


def curves(rows: Sequence[metrics_csv.Row]) -> list[dict[str, Any]]:
    """Return the charts of a run: its losses, and its test accuracies; empty ones are left out."""
    losses = _points(rows, "loss")
    loss = chart(
        [
            Line("each batch", thinned(losses), BLUE, faint=True),
            Line("training", thinned(smoothed(losses)), BLUE),
            Line("test", _points(rows, "test/loss"), ORANGE, dots=True),
        ]
    )
    top5 = Line("top-5", _points(rows, "test/accuracy/top-5"), "#868e96", dots=True)
    accuracy = chart([Line("top-1", _points(rows, "test/accuracy/top-1"), GREEN, dots=True), top5], percent=True)
    made: list[tuple[str, Chart]] = [("Loss", loss), ("Test accuracy", accuracy)]
    return [{"title": title, "chart": one} for title, one in made if one.lines]


def _points(rows: Sequence[metrics_csv.Row], name: str) -> list[tuple[float, float]]:
    return [(float(row["iteration"]), float(row[name])) for row in rows if name in row]


def _format(one: Format) -> dict[str, Any]:
    found = one.evaluation
    return {
        "name": one.name,
        "runtime": one.runtime,
        "file": one.path.name,
        "size": f"{one.bytes / 1e6:.2f} MB",
        "ran": found is not None,
        "reason": one.reason,
        "accuracy": f"{found.top(1):.2%}" if found else "",
        "top5": f"{found.top(5):.2%}" if found and found.classes > 5 else "",
        "right": f"{int((found.ranks < 1).sum()):,}" if found else "",
        "speed": f"{found.speed:,.0f}" if found else "",
    }


def confusion(found: Evaluation, names: Sequence[str]) -> dict[str, Any]:
    """Return the table of labels against predictions, each cell with its count and its strength from 0 to 1."""
    rows = enumerate(found.confusion())
    return {"names": list(names), "rows": [_confused(label, counts, names) for label, counts in rows]}


def _confused(label: int, counts: np.ndarray[Any, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return the row of one label: what its images were taken for."""
    images = int(counts.sum())
    shares = counts / max(images, 1)
    cells = [
        {
            "count": int(count) or "",
            "strength": f"{shares[column] ** 0.5:.3f}",
            "right": label == column,
            "bright": shares[column] > 0.3,
            "told": f"{count} of {images}: {names[label]} taken for {names[column]}",
        }
        for column, count in enumerate(counts)
    ]
    return {"name": names[label], "right": f"{shares[label]:.1%}", "cells": cells}


def verification_rows(report: VerificationReport) -> list[dict[str, Any]]:
    """Return a row for each runtime: what became of it, and its largest error."""
    return [_runtime(report, outcome) for outcome in report.outcomes]


def _runtime(report: VerificationReport, outcome: RuntimeOutcome) -> dict[str, Any]:
    reference = outcome.runtime == report.reference
    worst = outcome.worst
    return {
        "name": outcome.runtime,
        "state": "reference" if reference else outcome.state,
        "good": outcome.state == "ran" and outcome.ok,
        "blobs": "" if reference else len(outcome.comparisons) or "",
        "worst": f"{worst.error:.1e}" if worst else "",
        "where": worst.blob if worst else "",
        "tolerance": f"{worst.tolerance:.0e}" if worst else "",
        "reason": outcome.reason,
    }


def blob_table(report: VerificationReport) -> dict[str, Any]:
    """Return every blob with its error in every runtime, those that did not run included."""
    found: dict[str, dict[str, str]] = {}
    types: dict[str, str] = {}
    for outcome in report.compared:
        for one in outcome.comparisons:
            found.setdefault(one.blob, {})[outcome.runtime] = f"{one.error:.1e}"
            types[one.blob] = one.type
    runtimes = [outcome.runtime for outcome in report.outcomes]
    states = {o.runtime: "reference" if o.runtime == report.reference else o.state for o in report.outcomes}
    missing = {name: "" if state == "ran" else state for name, state in states.items()}
    rows = [(blob, types[blob], [cells.get(name, missing[name]) for name in runtimes]) for blob, cells in found.items()]
    return {"runtimes": runtimes, "rows": rows}


def gallery(seen: Sequence[Seen]) -> dict[str, Any]:
    """Return pictures side by side, and below each the mean mask of every module over it."""
    modules = [mask.module for mask in seen[0].masks] if seen else []
    return {
        "pictures": [{"tile": _picture(one), "label": one.title, "told": one.caption} for one in seen],
        "modules": [
            {
                "name": module,
                "size": "×".join(map(str, seen[0].masks[row].values.shape)),
                "tiles": [_mask_tile(one, one.masks[row]) for one in seen],
            }
            for row, module in enumerate(modules)
        ],
    }


def closeup(seen: Sequence[Seen]) -> dict[str, Any] | None:
    """Return one picture with the liveliest channels of each mask; None where there is no picture."""
    if not seen:
        return None
    one = seen[-1]
    rows = [
        {
            "name": mask.module,
            "channels": len(mask.values),
            "tiles": [(f"channel {channel}", _field(one, mask, channel)) for channel in mask.liveliest(CHANNELS)],
        }
        for mask in one.masks
    ]
    return {"label": one.title, "tile": _picture(one), "rows": rows}


def _picture(one: Seen) -> Tile:
    return Tile(one.title, shown(one.picture, SIDE))


def _mask_tile(one: Seen, mask: Mask) -> Tile:
    mean = mask.mean()
    return Tile(f"{mask.module}: {mean.min():.2f} to {mean.max():.2f}", overlay(shown(one.picture, SIDE), mean))


def _field(one: Seen, mask: Mask, channel: int) -> Tile:
    field = mask.values[channel]
    return Tile(f"{field.min():.2f} to {field.max():.2f}", overlay(shown(one.picture, SIDE), field))


def _member(one: Any) -> dict[str, Any]:
    return {
        "name": one.name,
        "input": one.input,
        "layers": f"{one.layers:,}",
        "parameters": f"{one.parameters / 1e6:.2f} M",
        "macs": f"{one.macs / 1e9:.2f} G",
        "problems": one.problems,
        "folder": f"zoo/{one.folder.name}",
    }
