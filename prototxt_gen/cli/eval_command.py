"""`prototxt-gen eval`: how often a net is right, in any runtime."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prototxt_gen.cli import options, reading
from prototxt_gen.cli.output import echo_json
from prototxt_gen.cli.progress import bar
from prototxt_gen.cli.table import echo_table
from prototxt_gen.common.printable import safe

if TYPE_CHECKING:
    from prototxt_gen.evaluate.scores import Evaluation, Samples

_BACKENDS = ("torch", "onnx", "pycaffe")


@click.command()
@reading.net_and_weights
@click.option("--data", type=options.FILE, help="What to test on; unless told, what a train_val's TEST layer names.")
@click.option("--kind", help="What the data are: lmdb, folder, list, npz, cifar10, idx, …; found out unless told.")
@click.option("--split", help="A part of data that have several, such as test.")
@click.option("--root", help="Folder before the names in a list.")
@click.option("--backend", "backends", type=click.Choice(_BACKENDS), multiple=True,
              help="What runs the net: torch unless told; given several times, they are compared.")  # fmt: skip
@reading.pictures
@click.option("--batch", type=click.IntRange(min=1), default=50, show_default=True, help="Crops run at a time.")
@click.option("--gpu", type=click.IntRange(min=0), help="torch: the card to use.")
@options.as_json
def eval(
    net: Path, weights: Path | None, backends: tuple[str, ...], batch: int, gpu: int | None, as_json: bool, **given: Any
) -> None:
    """Top-1 and top-5 accuracy of NET with WEIGHTS on any data set, and the classes it confuses.

    NET is a deploy or a train_val prototxt; or, without WEIGHTS, a model that was converted: .onnx, .pt2, a folder.
    """
    from prototxt_gen.evaluate.scores import evaluate

    opened = reading.open_all(net, weights, backends, gpu, **given)
    found = []
    for predictor in opened.predictors():
        try:
            with bar(predictor.name) as progress:
                found.append(evaluate(predictor, opened.samples, batch, progress))
        finally:
            predictor.close()
    if as_json:
        echo_json(_as_data(net, weights, opened.samples, opened.names, found))
    else:
        _echo(opened.samples, opened.names, found)


def _summary(one: Evaluation) -> dict[str, Any]:
    top5 = {"top5": one.top(5)} if one.classes > 5 else {}
    return {"backend": one.backend, "top1": one.top(1), **top5, "images_per_second": round(one.speed, 2)}


def _as_data(
    net: Path, weights: Path | None, samples: Samples, names: Sequence[str], found: Sequence[Evaluation]
) -> dict[str, Any]:
    first = found[0]
    return {
        "net": str(net),
        "weights": str(weights) if weights else None,
        "data": str(samples.dataset.path),
        "images": len(first),
        "classes": first.classes,
        "crops": samples.recipe.crops,
        "input": list(samples.input),
        "preprocessing": samples.recipe.words(),
        "results": [_summary(one) | {"differing": len(first.differs_from(one))} for one in found],
        "class_results": [
            {"label": label, "name": name, "images": images, "right": right}
            for label, name, images, right in _per_class(first, names)
        ],
        "confusion": first.confusion().tolist() if first.classes <= _MOST_CONFUSED else None,
    }


_MOST_CONFUSED = 100
"""A confusion table of more classes is left out."""


def _per_class(one: Evaluation, names: Sequence[str]) -> Iterator[tuple[int, str, int, int]]:
    """Yield (label, name, images, right) for every class that has images."""
    table = one.confusion()
    for label, row in enumerate(table):
        if row.sum():
            yield label, name_of(label, names), int(row.sum()), int(row[label])


def name_of(label: int, names: Sequence[str]) -> str:
    """Return a class's name, its number where it has none."""
    return names[label] if label < len(names) else str(label)


def _echo(samples: Samples, names: Sequence[str], found: Sequence[Evaluation]) -> None:
    first = found[0]
    click.echo(safe(f"{samples.dataset.path}: {len(first):,} images, {first.classes} classes"))
    click.echo(f"each: {safe(samples.recipe.words())}\n")
    columns = ("backend", "top-1", *(["top-5"] if first.classes > 5 else []), "images/s", "differing")
    rows = [_cells(one, first) for one in found]
    echo_table(columns, rows, right=columns[1:])
    if first.classes <= _MOST_CONFUSED:
        click.echo()
        shares = [
            (safe(name), f"{images:,}", f"{right / images:.2%}") for _, name, images, right in _per_class(first, names)
        ]
        echo_table(("class", "images", "right"), shares, right=("images", "right"))


def _cells(one: Evaluation, first: Evaluation) -> tuple[str, ...]:
    top5 = [f"{one.top(5):.2%}"] if one.classes > 5 else []
    differing = f"{len(first.differs_from(one)):,}" if one is not first else "-"
    return (safe(one.backend), f"{one.top(1):.2%}", *top5, f"{one.speed:,.0f}", differing)
