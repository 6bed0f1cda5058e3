"""`prototxt-gen emit`: write the prototxts of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from prototxt_gen.cli import options
from prototxt_gen.cli.command import Command
from prototxt_gen.cli.param_types import integers
from prototxt_gen.cli.renamed_options import renamed_option
from prototxt_gen.common.errors import PrototxtGenError

UNIT_TYPES = click.Choice(["pre-activation", "resnext", "resnet"])
"""The choices here are repeated from prototxt_gen.models and .blocks, which take long to import for --help."""
STEMS = click.Choice(["imagenet", "cifar"])
ATTENTIONS = click.Choice(["residual", "naive"])
MASK_ACTIVATIONS = click.Choice(["mixed", "channel", "spatial"])
MASKS = click.Choice(["encoder-decoder", "local-convolution"])
BN_STYLES = click.Choice(["merged", "batchnorm-scale", "frozen"])
UPSAMPLINGS = click.Choice(["interp", "deconvolution"])

net_options = options.option_group(
    click.option("--input-size", type=click.IntRange(min=1), metavar="N", show_default="224; CIFAR nets: 32",
                 help="Height and width of the input image."),
    click.option("--classes", type=click.IntRange(min=1), metavar="N", show_default="1000; CIFAR nets: 10",
                 help="Number of classes."),
    click.option("--channels", type=click.IntRange(min=1), metavar="N", show_default="3",
                 help="Channels of the input image."),
    click.option("--unit-type", "unit", type=UNIT_TYPES, show_default="that of NAME", help="Type of residual unit."),
    renamed_option("--unit", "--unit-type"),
    click.option("--units", type=integers, metavar="A,B,C,D", show_default="those of NAME",
                 help="Residual units in each stage, in addition to the first one and the attention modules."),
    click.option("--modules", type=integers, metavar="A,B,C", show_default="those of NAME",
                 help="Attention modules in each stage."),
    click.option("--ptr", type=integers, metavar="P,T,R", show_default="1,2,1",
                 help="The paper's p, t, r, for each attention module: units before and after the branches; units in "
                 "the trunk; units between two poolings of the mask."),
    click.option("--depths", type=integers, metavar="A,B,C", show_default="3,2,1",
                 help="Poolings in the masks of each stage."),
    click.option("--width", type=click.IntRange(min=1), metavar="N", show_default="64; CIFAR nets: 14",
                 help="Output channels of the first convolution; the stages have 4, 8, 16, 32 times as many."),
    click.option("--cardinality", type=click.IntRange(min=1), metavar="N", show_default="32",
                 help="Groups of the 3x3 convolution in resnext units."),
    click.option("--stem", type=STEMS, show_default="that of NAME",
                 help="First layers: imagenet (7x7 convolution of stride 2, pooling) or cifar (3x3 convolution)."),
    click.option("--attention", type=ATTENTIONS, show_default="residual",
                 help="How mask and trunk are combined: residual is (1+mask)*trunk, naive is mask*trunk."),
    click.option("--mask-activation", type=MASK_ACTIVATIONS, show_default="mixed",
                 help="Activation of the mask: mixed (sigmoid), channel (L2 norm over the channels) or spatial "
                 "(normalised per channel, then sigmoid)."),
    click.option("--mask", type=MASKS, show_default="encoder-decoder",
                 help="Mask branch: encoder-decoder (pooling and upsampling), or local-convolution (neither)."),
    click.option("--bn", type=BN_STYLES, show_default="merged",
                 help="Batch normalisation: merged (one BN layer), batchnorm-scale (BatchNorm and Scale, as in BVLC "
                 "Caffe), or frozen (BN layers that are not trained)."),
    click.option("--upsampling", type=UPSAMPLINGS, show_default="interp",
                 help="Upsampling: interp (Interp layer), or deconvolution (as BVLC Caffe has no Interp)."),
    click.option("--name", "name_", metavar="TEXT", show_default="that of the model", help="Name of the net."),
)  # fmt: skip


@click.command(
    cls=Command,
    examples=[
        "prototxt-gen emit attention-56 -o attention-56",
        "prototxt-gen emit attention-56-cifar --classes 100 --data-layer lmdb --train-data train_lmdb",
    ],
)
@click.argument("name", required=False)
@click.option("-o", "--output", type=options.OUTPUT_FOLDER, show_default="NAME; with --all: generated",
              help="Output directory.")  # fmt: skip
@click.option("--all", "everything", is_flag=True,
              help="Write all Residual Attention Networks, each into a folder of the output directory.")  # fmt: skip
@net_options
@options.data_layer_options(
    kind="lmdb; CIFAR nets: python",
    batch="32; CIFAR nets: 64",
    test_batch="25",
    crop="the input size",
    mean="104,117,123; CIFAR nets: 128",
)
@click.option("--solver", "solver_fields", multiple=True, metavar="FIELD=VALUE",
              help="Set a field of the solver. Repeatable.")  # fmt: skip
@click.option("--templates", type=options.FOLDER,
              help="Directory of Jinja2 templates that replace the built-in ones of the same names.")  # fmt: skip
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
    """Write the prototxts of a model: deploy, train_val and solver, and a model card (README.md).

    NAME is one of the models that `prototxt-gen models` lists. The options change it.
    """
    from prototxt_gen.models import GENERATED

    if everything == (name is not None):
        raise click.UsageError("give the NAME of a model, or --all")
    names = GENERATED if everything else [name or ""]
    for one in names:
        folder = (output or Path("generated")) / one if everything else output or Path(one)
        for path in _model(one, changes, solver_fields).write(folder, str(templates or ""), force):
            click.echo(path)


def _model(name: str, changes: dict[str, Any], solver_fields: tuple[str, ...]) -> Any:
    """Return the model with the options that were given; `changes` are named as the fields they set."""
    from prototxt_gen.models import model

    given = {key: value for key, value in changes.items() if value is not None}
    if "name_" in given:
        given["name"] = given.pop("name_")
    return model(name, solver=dict(_solver_field(text) for text in solver_fields), **given)


def _solver_field(text: str) -> tuple[str, Any]:
    """Parse FIELD=VALUE as prototxt; a repeated field takes several values separated by commas."""
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
