"""`prototxt-gen eval`: accuracy of a net, in any runtime."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prototxt_gen.cli import eval_options, options
from prototxt_gen.cli.command import Command
from prototxt_gen.cli.output import echo_json
from prototxt_gen.cli.table import echo_table
from prototxt_gen.common.printable import safe
from prototxt_gen.common.progress import progress_bar

if TYPE_CHECKING:
    from prototxt_gen.evaluate.scores import EvalSamples, Evaluation
    from prototxt_gen.evaluate.test_outputs import TestOutputs


@click.command(
    cls=Command,
    examples=[
        "prototxt-gen eval train_val.prototxt net.caffemodel  # on the data of its TEST phase",
        "prototxt-gen eval deploy.prototxt net.caffemodel --data val/ --resize 256 --backend torch --backend onnx",
    ],
)
@eval_options.net_options
@click.option("--data", type=options.FILE, show_default="the source of NET's TEST data layer",
              help="Data set to evaluate on.")  # fmt: skip
@options.source_options(
    (*options.STORED_KINDS, *options.SOURCE_KINDS), "as NET's TEST data layer; with --data, see `data info`"
)
@click.option("--backend", "backends", type=eval_options.RUNTIMES, multiple=True, show_default="torch",
              help="Runtime of the net. Repeatable; the results are compared.")  # fmt: skip
@eval_options.image_options
@click.option("--batch", type=click.IntRange(min=1), metavar="N", default=50, show_default=True,
              help="Crops to run at a time.")  # fmt: skip
@click.option("--gpu", type=click.IntRange(min=0), metavar="N", show_default="CPU",
              help="Number of the GPU to use (torch only).")  # fmt: skip
@click.option("--iterations", type=click.IntRange(min=1), metavar="N", show_default="one pass over the data",
              help="Batches of the TEST data layer to run, for a net that is no classifier.")  # fmt: skip
@options.as_json
def eval(
    net: Path,
    weights: Path | None,
    backends: tuple[str, ...],
    batch: int,
    gpu: int | None,
    iterations: int | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Measure top-1 and top-5 accuracy of NET with WEIGHTS on a data set, for all images and for each class.

    NET is a deploy or train_val prototxt. Or, without WEIGHTS, it is a converted model: .onnx, .pt2, or the folder of
    `convert pytorch`. A train_val that is no classifier runs on its TEST data, and the means of its outputs are
    printed, as by `caffe test`.
    """
    tested = eval_options.outputs_of_no_classifier(net, weights, backends, gpu, iterations, given)
    if tested is not None:
        _echo_outputs(net, weights, tested, as_json)
        return
    from prototxt_gen.evaluate.scores import evaluate

    opened = eval_options.open_eval(net, weights, backends, gpu, **given)
    found = []
    for predictor in opened.predictors():
        try:
            with progress_bar(predictor.name) as progress:
                found.append(evaluate(predictor, opened.samples, batch, progress))
        finally:
            predictor.close()
    if as_json:
        echo_json(_as_data(net, weights, opened.samples, opened.names, found))
    else:
        _echo(opened.samples, opened.names, found)


def _echo_outputs(net: Path, weights: Path | None, tested: TestOutputs, as_json: bool) -> None:
    """Print the mean outputs of a net in the TEST phase."""
    if as_json:
        found = {"outputs": dict(tested.outputs), "batches": tested.batches, "batch": tested.batch_size}
        echo_json({"net": str(net), "weights": str(weights)} | found)
        return
    click.echo(safe(f"{net}: {tested.batches:,} batches of {tested.batch_size} in the TEST phase"))
    for name, value in tested.outputs.items():
        click.echo(f"{safe(name)}: {value:.6g}")


def _summary(one: Evaluation) -> dict[str, Any]:
    top5 = {"top5": one.top_accuracy(5)} if one.classes > 5 else {}
    return {
        "backend": one.backend,
        "top1": one.top_accuracy(1),
        **top5,
        "images_per_second": round(one.images_per_second, 2),
    }


def _as_data(
    net: Path, weights: Path | None, samples: EvalSamples, names: Sequence[str], found: Sequence[Evaluation]
) -> dict[str, Any]:
    first = found[0]
    return {
        "net": str(net),
        "weights": str(weights) if weights else None,
        "data": str(samples.dataset.path),
        "images": len(first),
        "classes": first.classes,
        "crops": samples.preprocessor.crops,
        "input": list(samples.input),
        "preprocessing": samples.preprocessor.description(),
        "results": [_summary(one) | {"differing": len(first.differs_from(one))} for one in found],
        "class_results": [
            {"label": label, "name": name, "images": images, "right": right}
            for label, name, images, right in _per_class(first, names)
        ],
        "confusion": first.confusion().tolist() if first.classes <= _MAX_CONFUSION_CLASSES else None,
    }


_MAX_CONFUSION_CLASSES = 100
"""With more classes, the confusion table is left out."""


def _per_class(one: Evaluation, names: Sequence[str]) -> Iterator[tuple[int, str, int, int]]:
    """Yield (label, name, images, right) for every class that has images."""
    table = one.confusion()
    for label, row in enumerate(table):
        if row.sum():
            yield label, name_of(label, names), int(row.sum()), int(row[label])


def name_of(label: int, names: Sequence[str]) -> str:
    """Return the name of a class, or its number if it has none."""
    return names[label] if label < len(names) else str(label)


def _echo(samples: EvalSamples, names: Sequence[str], found: Sequence[Evaluation]) -> None:
    first = found[0]
    click.echo(safe(f"{samples.dataset.path}: {len(first):,} images, {first.classes} classes"))
    click.echo(f"each: {safe(samples.preprocessor.description())}\n")
    columns = ("backend", "top-1", *(["top-5"] if first.classes > 5 else []), "images/s", "differing")
    rows = [_cells(one, first) for one in found]
    echo_table(columns, rows, right=columns[1:])
    if first.classes <= _MAX_CONFUSION_CLASSES:
        click.echo()
        shares = [
            (safe(name), f"{images:,}", f"{right / images:.2%}") for _, name, images, right in _per_class(first, names)
        ]
        echo_table(("class", "images", "right"), shares, right=("images", "right"))


def _cells(one: Evaluation, first: Evaluation) -> tuple[str, ...]:
    top5 = [f"{one.top_accuracy(5):.2%}"] if one.classes > 5 else []
    differing = f"{len(first.differs_from(one)):,}" if one is not first else "-"
    return (safe(one.backend), f"{one.top_accuracy(1):.2%}", *top5, f"{one.images_per_second:,.0f}", differing)
