"""`prototxt-gen classify`: the classes that a net sees in image files, and its attention masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prototxt_gen.cli import eval_options, options
from prototxt_gen.cli.command import Command
from prototxt_gen.cli.output import echo_json
from prototxt_gen.common.printable import safe

if TYPE_CHECKING:
    from converters.common.net_with_weights import NetWithWeights
    from prototxt_gen.evaluate.classification import Classification


@click.command(
    cls=Command,
    examples=[
        "prototxt-gen classify deploy.prototxt net.caffemodel cat.jpg --labels synset_words.txt --count 3",
        "prototxt-gen classify deploy.prototxt net.caffemodel cat.jpg dog.jpg --masks masks.html",
    ],
)
@eval_options.net_options
@click.argument("images", type=options.FILE, nargs=-1, required=True)
@click.option("--labels", type=options.FILE, show_default="numbers",
              help="Text file with the names of the classes, one per line.")  # fmt: skip
@click.option("--count", type=click.IntRange(min=1), metavar="N", default=5, show_default=True,
              help="Number of classes to print for each image.")  # fmt: skip
@click.option("--backend", type=eval_options.RUNTIMES, default="torch", show_default=True,
              help="Runtime of the net.")  # fmt: skip
@click.option("--masks", "target", type=options.OUTPUT_FILE, metavar="PATH", show_default="not drawn",
              help="Draw the attention masks over the images into this .html, .png or folder.")  # fmt: skip
@click.option("--mask-blobs", default="*/mask", show_default=True, metavar="PATTERN",
              help="Names of the blobs that are masks; * is any text.")  # fmt: skip
@eval_options.image_options
@options.force
@options.as_json
def classify(
    net: Path,
    weights: Path,
    images: tuple[Path, ...],
    labels: Path | None,
    count: int,
    target: Path | None,
    mask_blobs: str,
    force: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Print the classes that NET with WEIGHTS sees in IMAGES; draw its attention masks."""
    from prototxt_gen.evaluate.classification import classify
    from prototxt_gen.evaluate.eval_data import EvalDataOptions, class_names, image_preprocessor

    asked = EvalDataOptions(crops=given.pop("crops"), resize=given.pop("resize"))
    backend, top = given.pop("backend"), given.pop("top")
    own = eval_options.data_layer_of_test(net, given["stages"], given["level"])
    own, shapes = eval_options.adapt_to_image_files(own, given.pop("shapes"))
    model = eval_options.open_net(net, weights, own, shapes=shapes, **given)
    assert model.caffe_model is not None  # only converted models have none
    _refuse_old_top(top, model.caffe_model)
    eval_options.warn_if_unknown(net, model)
    recipe = image_preprocessor(model.input, model.preprocessing, model.own, asked)
    pattern = mask_blobs if target is not None else ""
    seen = classify(model.caffe_model, recipe, images, class_names(None, labels), backend, top, pattern)
    if target is not None:
        _draw_masks(target, seen, force)
    echo_json([one.as_data(count) for one in seen]) if as_json else _echo(seen, count)


def _refuse_old_top(top: str, caffe_model: NetWithWeights) -> None:
    """Raise an error for `--top 5`, the old spelling of `--count 5`, unless the net has a blob of that name."""
    if top.isdecimal() and top not in caffe_model.last_values():
        raise click.UsageError(f"--top is the blob with the scores; for the number of classes write --count {top}")


def _draw_masks(target: Path, seen: Sequence[Classification], force: bool) -> None:
    from prototxt_gen.evaluate.attention_maps import write_masks

    for path in write_masks(target, [one.as_masked_image(top=1) for one in seen], force):
        click.echo(f"masks: {safe(str(path))}", err=True)


def _echo(seen: Sequence[Classification], count: int) -> None:
    for one in seen:
        click.echo(safe(str(one.path)))
        for name, probability in one.top_classes(count):
            click.echo(f"  {probability:7.2%}  {safe(name)}")
