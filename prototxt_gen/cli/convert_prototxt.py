"""`prototxt-gen convert prototxt`: a net in a newer form, in another dialect, as a deploy net or as a train_val."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prototxt_gen.cli import options
from prototxt_gen.common.errors import NetError
from prototxt_gen.common.printable import safe

if TYPE_CHECKING:
    from prototxt_gen.ir import Net, Shape
    from prototxt_gen.passes.to_train_val import Data


@click.command(name="prototxt")
@options.net_argument
@options.output
@click.option("--to-deploy", is_flag=True, help="From a train_val: inputs for data, Softmax for its loss.")
@click.option("--to-train-val", is_flag=True, help="From a deploy net: data, fillers, loss, accuracy.")
@options.data
@click.option("--freeze-bn", is_flag=True, help="Leave batch normalisation frozen in the train_val.")
@click.option("--dialect", help="The fork that is to read it; what it lacks is said otherwise, or is an error.")
@click.option("--bn", type=click.Choice(["merged", "batchnorm-scale"]), help="BN, or BatchNorm and Scale.")
@options.input_size
@options.shape
@options.force
def prototxt(
    net: Path,
    output: Path,
    to_deploy: bool,
    to_train_val: bool,
    freeze_bn: bool,
    dialect: str | None,
    bn: str | None,
    size: str | None,
    shapes: tuple[str, ...],
    force: bool,
    **data: Any,
) -> None:
    """Write NET anew: as V2 whatever it was, and changed as the options say. Comments are not kept."""
    from prototxt_gen.common.files import refuse_overwriting, write_text

    if to_deploy and to_train_val:
        raise click.UsageError("--to-deploy or --to-train-val, not both")
    chosen = {name: value for name, value in data.items() if value is not None}
    if chosen and not to_train_val:
        raise click.UsageError("the data options are for --to-train-val")
    refuse_overwriting([output], force)
    read = options.read_whole(net)
    given = options.given_shapes(options.in_phase(read, None, (), 0), size, shapes)
    made, known = read, {"TRAIN": given, "TEST": given}
    if to_deploy:
        made, known = _deploy(read, given), {}
    elif to_train_val:
        made, known = _train_val(read, given, chosen, freeze_bn)
    made = _in_dialect(_with_bn(made, bn), dialect)
    write_text(output, _text(made, known), force)
    click.echo(output)


def _text(net: Net, given: Mapping[str, Mapping[str, Shape]]) -> str:
    from prototxt_gen.analysis import top_shapes
    from prototxt_gen.net.render import net_text

    return net_text(net, top_shapes(net, given))


def _deploy(net: Net, given: Mapping[str, Shape]) -> Net:
    from prototxt_gen.passes.to_deploy import deploy
    from prototxt_gen.schema.caffe_proto import TransformationParameter

    for layer in net.at("TEST").layers:
        transform = layer.get(TransformationParameter)
        told = ("scale", "mean_file", "mean_value")
        fields = ", ".join(f"{name} {getattr(transform, name)}" for name in told if transform.has(name))
        if fields:
            who = f"layer {safe(layer.name)!r} ({safe(layer.type)})"
            click.echo(f"note: {who} applied {safe(fields)}; feed the deploy net images treated alike", err=True)
    made = deploy(net, given)
    return replace(made, source=net.source)


def _train_val(
    net: Net, given: Mapping[str, Shape], chosen: dict[str, Any], freeze_bn: bool
) -> tuple[Net, dict[str, Mapping[str, Shape]]]:
    """Return the train_val, and the shapes that its data layers make in each phase."""
    from prototxt_gen.passes.to_train_val import train_val

    shape = _image_shape(net, given)
    data = _data(shape, chosen)
    made = train_val(net.at("TEST"), data, freeze_bn=freeze_bn)
    size = (data.crop, data.crop) if data.kind != "hdf5" else shape[2:]
    batches = {"TRAIN": data.batch, "TEST": data.test_batch}
    return made, {name: {"data": (n, shape[1], *size), "label": (n,)} for name, n in batches.items()}


def _image_shape(net: Net, given: Mapping[str, Shape]) -> Shape:
    from prototxt_gen.analysis import analyse
    from prototxt_gen.net.lowering_checks import sources

    test = net.at("TEST")
    shapes = [analyse(test, given).shapes.get(value) for value in sources(test)]
    if len(shapes) == 1 and shapes[0] is not None and len(shapes[0]) == 4:
        return shapes[0]
    raise NetError(f"{net.source}: a net with one input of known shape N×C×H×W is needed; --shape gives one")


def _data(shape: Shape, chosen: dict[str, Any]) -> Data:
    """Return the data layers' settings: those chosen, and what the input's shape says of the others."""
    from prototxt_gen.passes.to_train_val import Data

    _, channels, height, width = shape
    if height != width and chosen.get("kind") != "hdf5":
        raise NetError(
            f"the input is {height}x{width}, and Caffe's data layers crop squares; --data hdf5 takes it as it is"
        )
    mean = Data.mean if channels == len(Data.mean) else (sum(Data.mean) / len(Data.mean),)
    known: dict[str, Any] = {"crop": height, "channels": channels, "mean": mean}
    return Data(**known | chosen)


def _with_bn(net: Net, style: str | None) -> Net:
    from prototxt_gen.passes.bn_merge import merge
    from prototxt_gen.passes.bn_split import split
    from prototxt_gen.weights import Weights

    if style is None:
        return net
    made, _ = (merge if style == "merged" else split)(net, Weights({}))
    return made


def _in_dialect(net: Net, name: str | None) -> Net:
    from prototxt_gen.passes.to_dialect import to_dialect
    from prototxt_gen.schema.dialect import dialect

    return net if name is None else to_dialect(net, dialect(name))
