"""The demo's report, one self-contained HTML page: this module computes its contents, the template formats them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.verification.verify import RuntimeOutcome, VerificationReport
from prototxt_gen.analysis import analyse
from prototxt_gen.common.errors import PrototxtGenError
from prototxt_gen.demo.commands import equivalent_commands
from prototxt_gen.demo.line_charts import Chart, Line, line_chart, smoothed, thinned
from prototxt_gen.demo.results import DemoResults, FormatResult, TrainingResult
from prototxt_gen.demo.steps import count_differing
from prototxt_gen.draw.drawing import make_drawing, short_number
from prototxt_gen.draw.html import html_text as drawing_text
from prototxt_gen.evaluate.attention_maps import ImageTile, Mask, MaskedImage, enlarged_colour, overlay
from prototxt_gen.net.prototxt_reader import read_net
from prototxt_gen.net.render import render
from prototxt_gen.train import metrics_csv

if TYPE_CHECKING:
    from prototxt_gen.evaluate.scores import Evaluation

BLUE, ORANGE, GREEN = "#2f6fd0", "#e8590c", "#2b8a3e"
MIN_TILE_SIDE = 112
"""Minimum side of an image tile, in pixels."""
CHANNELS_PER_MASK = 6
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


def html_text(results: DemoResults, templates: str = "") -> str:
    """Return the HTML page. Raises PrototxtGenError if the results of the demo are incomplete."""
    ran = results.ran()
    if not ran or results.trained is None or results.verification is None or ran[0].evaluation is None:
        raise PrototxtGenError("there is nothing to report: the demo is not complete")
    return render(
        "report.html.j2",
        templates,
        **_template_context(results, results.trained, results.verification, ran[0].evaluation),
    )


def _template_context(
    results: DemoResults, trained: TrainingResult, verification: VerificationReport, found: Evaluation
) -> dict[str, Any]:
    net = read_net(results.net / "deploy.prototxt")
    analysis = analyse(net)
    rows = list(metrics_csv.read_metrics(trained.metrics))
    return {
        "net": net.name,
        "layers": len(net.layers),
        "parameters": f"{analysis.parameters:,}",
        "macs": short_number(analysis.macs),
        "data": results.pictures.name,
        "origin": results.pictures.origin,
        "images": [f"{count:,}" for count in results.sets.count],
        "accuracy": f"{found.top_accuracy(1):.2%}",
        "differing": count_differing(results.formats),
        "iterations": f"{trained.iterations:,}",
        "minutes": f"{trained.seconds / 60:.1f}",
        "speed": f"{_trained_images(results) / max(trained.seconds, 1e-9):,.0f}",
        "worst": f"{verification.worst:.1e}",
        "verified": verification.verified,
        "steps": list(_steps(results)),
        "charts": training_charts(rows),
        "formats": [_format_row(one) for one in results.formats],
        "confusion": confusion_table(found, results.sets.names),
        "verification": verification_rows(verification),
        "blobs": error_table(verification),
        "gallery": mask_gallery(results.seen),
        "closeup": channel_closeup(results.seen),
        "mistakes": [
            {"tile": _picture_tile(one), "label": one.title, "predicted": one.caption} for one in results.mistakes
        ],
        "drawing": drawing_text(make_drawing(analysis)),
        "zoo": [_zoo_row(one) for one in results.zoo],
        "commands": equivalent_commands(results, trained),
    }


def _trained_images(results: DemoResults) -> int:
    from prototxt_gen.demo.steps import BATCH

    return results.trained.iterations * BATCH if results.trained else 0


def _steps(results: DemoResults) -> Iterator[dict[str, Any]]:
    total = sum(results.seconds.values()) or 1.0
    for name, seconds in results.seconds.items():
        yield {"name": STEP_NAMES[name], "seconds": _duration(seconds), "share": f"{100 * seconds / total:.1f}"}


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds // 60)} min {seconds % 60:.0f} s"


def training_charts(rows: Sequence[metrics_csv.Row]) -> list[dict[str, Any]]:
    """Return the charts of the losses and of the test accuracies of a training run; empty charts are left out."""
    losses = _points(rows, "loss")
    loss = line_chart(
        [
            Line("each batch", thinned(losses), BLUE, faint=True),
            Line("training", thinned(smoothed(losses)), BLUE),
            Line("test", _points(rows, "test/loss"), ORANGE, dots=True),
        ]
    )
    top5 = Line("top-5", _points(rows, "test/accuracy/top-5"), "#868e96", dots=True)
    accuracy = line_chart([Line("top-1", _points(rows, "test/accuracy/top-1"), GREEN, dots=True), top5], percent=True)
    made: list[tuple[str, Chart]] = [("Loss", loss), ("Test accuracy", accuracy)]
    return [{"title": title, "chart": one} for title, one in made if one.lines]


def _points(rows: Sequence[metrics_csv.Row], name: str) -> list[tuple[float, float]]:
    return [(float(row["iteration"]), float(row[name])) for row in rows if name in row]


def _format_row(one: FormatResult) -> dict[str, Any]:
    found = one.evaluation
    return {
        "name": one.name,
        "runtime": one.runtime,
        "file": one.path.name,
        "size": f"{one.bytes / 1e6:.2f} MB",
        "ran": found is not None,
        "reason": one.reason,
        "accuracy": f"{found.top_accuracy(1):.2%}" if found else "",
        "top5": f"{found.top_accuracy(5):.2%}" if found and found.classes > 5 else "",
        "right": f"{int((found.ranks < 1).sum()):,}" if found else "",
        "speed": f"{found.images_per_second:,.0f}" if found else "",
    }


def confusion_table(found: Evaluation, names: Sequence[str]) -> dict[str, Any]:
    """Return the confusion matrix for the template, each cell with its count and its colour strength from 0 to 1."""
    rows = enumerate(found.confusion())
    return {"names": list(names), "rows": [_confusion_row(label, counts, names) for label, counts in rows]}


def _confusion_row(label: int, counts: np.ndarray[Any, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return the row of one label, with a cell for each predicted class."""
    images = int(counts.sum())
    shares = counts / max(images, 1)
    cells = [
        {
            "count": int(count) or "",
            "strength": f"{shares[column] ** 0.5:.3f}",
            "right": label == column,
            "bright": shares[column] > 0.3,
            "predicted": f"{count} of {images}: {names[label]} predicted as {names[column]}",
        }
        for column, count in enumerate(counts)
    ]
    return {"name": names[label], "right": f"{shares[label]:.1%}", "cells": cells}


def verification_rows(report: VerificationReport) -> list[dict[str, Any]]:
    """Return a table row for each runtime: its state and its largest error."""
    return [_verification_row(report, outcome) for outcome in report.outcomes]


def _verification_row(report: VerificationReport, outcome: RuntimeOutcome) -> dict[str, Any]:
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


def error_table(report: VerificationReport) -> dict[str, Any]:
    """Return a table of the errors of all blobs in all runtimes, including runtimes that did not run."""
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


def mask_gallery(seen: Sequence[MaskedImage]) -> dict[str, Any]:
    """Return the images side by side, and for each attention module a row with the mean mask over each image."""
    modules = [mask.module for mask in seen[0].masks] if seen else []
    return {
        "pictures": [{"tile": _picture_tile(one), "label": one.title, "predicted": one.caption} for one in seen],
        "modules": [
            {
                "name": module,
                "size": "×".join(map(str, seen[0].masks[row].values.shape)),
                "tiles": [_mask_tile(one, one.masks[row]) for one in seen],
            }
            for row, module in enumerate(modules)
        ],
    }


def channel_closeup(seen: Sequence[MaskedImage]) -> dict[str, Any] | None:
    """Return the last image with the most varying channels of each mask, or None if there are no images."""
    if not seen:
        return None
    one = seen[-1]
    rows = [
        {
            "name": mask.module,
            "channels": len(mask.values),
            "tiles": [
                (f"channel {channel}", _channel_tile(one, mask, channel))
                for channel in mask.most_varying_channels(CHANNELS_PER_MASK)
            ],
        }
        for mask in one.masks
    ]
    return {"label": one.title, "tile": _picture_tile(one), "rows": rows}


def _picture_tile(one: MaskedImage) -> ImageTile:
    return ImageTile(one.title, enlarged_colour(one.picture, MIN_TILE_SIDE))


def _mask_tile(one: MaskedImage, mask: Mask) -> ImageTile:
    mean = mask.mean()
    return ImageTile(
        f"{mask.module}: {mean.min():.2f} to {mean.max():.2f}",
        overlay(enlarged_colour(one.picture, MIN_TILE_SIDE), mean),
    )


def _channel_tile(one: MaskedImage, mask: Mask, channel: int) -> ImageTile:
    field = mask.values[channel]
    return ImageTile(
        f"{field.min():.2f} to {field.max():.2f}", overlay(enlarged_colour(one.picture, MIN_TILE_SIDE), field)
    )


def _zoo_row(one: Any) -> dict[str, Any]:
    return {
        "name": one.name,
        "input": one.input,
        "layers": f"{one.layers:,}",
        "parameters": f"{one.parameters / 1e6:.2f} M",
        "macs": f"{one.macs / 1e9:.2f} G",
        "problems": one.problems,
        "folder": f"zoo/{one.folder.name}",
    }
