from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from prototxt_gen.cli import options
from prototxt_gen.common.errors import PrototxtGenError


def _counts(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Parse `1,2,3`."""
    if value is None:
        return None
    try:
        return tuple(int(part) for part in value.split(",")) if value.strip() else ()
    except ValueError:
        raise click.BadParameter(f"{value!r} is not whole numbers with commas between them") from None


NET_OPTIONS = [
    click.option("--input-size", type=click.IntRange(min=1), help="Height and width of the test image."),
    click.option("--classes", type=click.IntRange(min=1), help="Outputs of the classifier."),
    click.option("--channels", type=click.IntRange(min=1), help="Channels of the image."),
    click.option("--unit", help="pre-activation, resnext or resnet."),
    click.option("--modules", callback=_counts, metavar="A,B,C", help="Attention modules per stage."),
    click.option("--units", callback=_counts, metavar="A,B,C,D", help="Further plain units per stage."),
    click.option("--ptr", callback=_counts, metavar="P,T,R", help="Units outside, in the trunk, per mask level."),
    click.option("--depths", callback=_counts, metavar="A,B,C", help="How often each stage's masks halve the map."),
    click.option("--width", type=click.IntRange(min=1), help="Channels of the stem; stages: 4, 8, 16, 32 times it."),
    click.option("--cardinality", type=click.IntRange(min=1), help="Groups of the ResNeXt unit."),
    click.option("--stem", help="imagenet or cifar."),
    click.option("--attention", help="residual: (1+mask)·trunk, or naive: mask·trunk."),
    click.option("--mask-activation", help="mixed (sigmoid), channel (L2 over channels) or spatial (per map)."),
    click.option("--mask", help="encoder-decoder or local-convolution."),
    click.option("--bn", help="merged, batchnorm-scale (stock Caffe) or frozen."),
    click.option("--upsampling", help="interp, or deconvolution (stock Caffe)."),
    click.option("--name", "name_", help="The net's own name."),
]


@click.command()
@click.argument("name", required=False)
@click.option("-o", "--output", type=options.FOLDER, help="Folder to write to; NAME unless told.")
@click.option("--all", "everything", is_flag=True, help="Write the whole zoo, a folder each, below the output folder.")
@options.all_of(NET_OPTIONS)
@options.data
@click.option("--solver", "solver_fields", multiple=True, metavar="FIELD=VALUE", help="Change a field of the solver.")
@click.option("--templates", type=options.FOLDER, help="Your own templates, before ours.")
@options.force
def emit(
    name: str | None,
    output: Path | None,
    everything: bool,
    solver_fields: tuple[str, ...],
    templates: Path | None,
    force: bool,
    **changes: Any,
) -> None:
    """Write deploy, train_val and solver prototxts and a model card for NAME of the zoo, or a variant of it."""
    from prototxt_gen.models import GENERATED

    if everything == (name is not None):
        raise click.UsageError("give the NAME of a model, or --all")
    names = GENERATED if everything else [name or ""]
    for one in names:
        folder = (output or Path("generated")) / one if everything else output or Path(one)
        for path in _model(one, changes, solver_fields).write(folder, str(templates or ""), force):
            click.echo(path)


def _model(name: str, changes: dict[str, Any], solver_fields: tuple[str, ...]) -> Any:
    from prototxt_gen.models import model

    given = {key: value for key, value in changes.items() if value is not None}
    if "name_" in given:
        given["name"] = given.pop("name_")
    return model(name, solver=dict(_solver_field(text) for text in solver_fields), **given)


def _solver_field(text: str) -> tuple[str, Any]:
    """Parse FIELD=VALUE as the text format would; a repeated field takes its values with commas between them."""
    from prototxt_gen.common.errors import PrototxtError
    from prototxt_gen.schema.caffe_proto import SolverParameter
    from prototxt_gen.text import parse

    key, equals, value = text.partition("=")
    if not equals or not value:
        raise PrototxtGenError(f"--solver {text!r}: write FIELD=VALUE")
    known = SolverParameter.fields.get(key)
    written = f'"{value}"' if known is not None and known.kind == "string" else value
    written = f"[{written}]" if known is not None and known.repeated else written
    try:
        made = SolverParameter.from_text(parse(f"{key}: {written}"))
    except PrototxtError as error:
        raise PrototxtGenError(f"--solver {text!r}: {error}") from None
    if made.extras:
        raise PrototxtGenError(f"--solver {text!r}: {made.extras[0].reason}")
    return next(made.set_fields())
