"""`prototxt-gen classify`: what a net sees in pictures, and where it looks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prototxt_gen.cli import options, reading
from prototxt_gen.cli.output import echo_json
from prototxt_gen.common.printable import safe

if TYPE_CHECKING:
    from prototxt_gen.evaluate.classification import Sight


@click.command()
@reading.net_and_weights
@click.argument("pictures", type=options.FILE, nargs=-1, required=True)
@click.option("--labels", type=options.FILE, help="Names of the classes, one a line.")
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True, help="How many classes to print.")
@click.option("--backend", type=click.Choice(["torch", "onnx", "pycaffe"]), default="torch", help="What runs the net.")
@click.option("--masks", "target", type=options.FILE, metavar="OUT", help="Draw the masks: a .html, a .png, a folder.")
@click.option("--mask-blobs", default="*/mask", show_default=True, metavar="PATTERN", help="Which blobs are masks.")
@reading.pictures
@options.force
@options.as_json
def classify(
    net: Path,
    weights: Path,
    pictures: tuple[Path, ...],
    labels: Path | None,
    top: int,
    target: Path | None,
    mask_blobs: str,
    force: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Print the classes NET with WEIGHTS sees in PICTURES, and draw its attention masks over them, module by module."""
    from prototxt_gen.evaluate.classification import classify
    from prototxt_gen.evaluate.eval_data import Asked, class_names, recipe_for

    asked = Asked(crops=given.pop("crops"), resize=given.pop("resize"))
    backend, output = given.pop("backend"), given.pop("output")
    own, shapes = reading.for_pictures(reading.own_data_of(net, given["stages"], given["level"]), given.pop("shapes"))
    model = reading.open_net(net, weights, own, shapes=shapes, **given)
    recipe = recipe_for(model.input, model.preprocessing, model.own, asked)
    pattern = mask_blobs if target is not None else ""
    assert model.subject is not None  # only converted files have none
    seen = classify(model.subject, recipe, pictures, class_names(None, labels), backend, output, pattern)
    if target is not None:
        from prototxt_gen.evaluate.attention_maps import write

        for path in write(target, [one.drawn(top=1) for one in seen], force):
            click.echo(f"masks: {safe(str(path))}", err=True)
    echo_json([one.as_data(top) for one in seen]) if as_json else _echo(seen, top)


def _echo(seen: Sequence[Sight], top: int) -> None:
    for one in seen:
        click.echo(safe(str(one.path)))
        for name, probability in one.best(top):
            click.echo(f"  {probability:7.2%}  {safe(name)}")
