"""`prototxt-gen convert prototxt`: a net in the current format, for another fork, as a deploy net or a train_val."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prototxt_gen.cli import options
from prototxt_gen.cli.command import Command
from prototxt_gen.cli.read_net import net_in_phase, read_all_phases, shapes_from_options
from prototxt_gen.cli.renamed_options import replaced_option
from prototxt_gen.common.errors import NetError
from prototxt_gen.common.printable import safe

if TYPE_CHECKING:
    from prototxt_gen.ir import Net, Shape
    from prototxt_gen.passes.to_train_val import DataOptions


@click.command(
    cls=Command,
    examples=[
        "prototxt-gen convert prototxt train_val.prototxt -o deploy.prototxt --to-deploy",
        "prototxt-gen convert prototxt net.prototxt -o ssd.prototxt --to-dialect ssd",
    ],
)
@options.net_argument
@click.option("-o", "--output", type=options.FILE, required=True, help="Output file.")
@click.option("--to-deploy", is_flag=True,
              help="Turn a train_val into a deploy net: data layers become inputs, SoftmaxWithLoss becomes "
              "Softmax.")  # fmt: skip
@click.option("--to-train-val", is_flag=True,
              help="Turn a deploy net into a train_val: add data layers, fillers, loss and accuracy.")  # fmt: skip
@options.data_layer_options(
    kind="lmdb", batch="32", test_batch="25", crop="the input size", mean="104,117,123, or their mean"
)
@click.option("--freeze-bn", is_flag=True, help="Do not train batch normalisation in the train_val.")
@click.option("--to-dialect", type=options.FORK, show_default="unchanged",
              help="Caffe fork that will read the output. Layers that it lacks are replaced by equivalent ones; if "
              "there are none, it is an error.")  # fmt: skip
@replaced_option("--dialect", "--dialect is the fork that wrote what is read; for the fork that will read the output "
                 "write --to-dialect {}")  # fmt: skip
@click.option("--bn", type=click.Choice(["merged", "batchnorm-scale"]), show_default="unchanged",
              help="Form of batch normalisation: merged is one BN layer, batchnorm-scale is BatchNorm and "
              "Scale.")  # fmt: skip
@options.input_size
@options.shape
@options.force
def prototxt(
    net: Path,
    output: Path,
    to_deploy: bool,
    to_train_val: bool,
    freeze_bn: bool,
    to_dialect: str | None,
    bn: str | None,
    size: str | None,
    shapes: tuple[str, ...],
    force: bool,
    **data: Any,
) -> None:
    """Rewrite NET in the current format (V0 and V1 are upgraded), with the changes that the options ask for.

    Comments are not kept. The options of data layers are for --to-train-val.
    """
    from prototxt_gen.common.files import refuse_overwriting, write_text

    if to_deploy and to_train_val:
        raise click.UsageError("--to-deploy or --to-train-val, not both")
    chosen = {name: value for name, value in data.items() if value is not None}
    if chosen and not to_train_val:
        raise click.UsageError("the options of data layers need --to-train-val")
    refuse_overwriting([output], force)
    read = read_all_phases(net)
    given = shapes_from_options(net_in_phase(read, None, (), 0), size, shapes)
    made, known = read, {"TRAIN": given, "TEST": given}
    if to_deploy:
        made, known = _deploy(read, given), {}
    elif to_train_val:
        made, known = _train_val(read, given, chosen, freeze_bn)
    made = _for_fork(_with_bn(made, bn), to_dialect)
    write_text(output, _text(made, known), force)
    click.echo(output)


def _text(net: Net, given: Mapping[str, Mapping[str, Shape]]) -> str:
    from prototxt_gen.analysis import top_shapes
    from prototxt_gen.net.render import net_text

    return net_text(net, top_shapes(net, given))


def _deploy(net: Net, given: Mapping[str, Shape]) -> Net:
    from prototxt_gen.passes.to_deploy import to_deploy
    from prototxt_gen.schema.caffe_proto import TransformationParameter

    for layer in net.at("TEST").layers:
        transform = layer.get(TransformationParameter)
        names = [name for name in ("scale", "mean_file", "mean_value") if transform.has(name)]
        if names:
            where = f"layer {safe(layer.name)!r} ({safe(layer.type)})"
            fields = safe(", ".join(f"{name} {getattr(transform, name)}" for name in names))
            click.echo(f"note: {where} applied {fields}; apply the same to the images for the deploy net", err=True)
    return replace(to_deploy(net, given), source=net.source)


def _train_val(
    net: Net, given: Mapping[str, Shape], chosen: dict[str, Any], freeze_bn: bool
) -> tuple[Net, dict[str, Mapping[str, Shape]]]:
    """Return the train_val, and the shapes of its data layers' tops in each phase."""
    from prototxt_gen.passes.to_train_val import to_train_val

    shape = _image_shape(net, given)
    data = _data(shape, chosen)
    made = to_train_val(net.at("TEST"), data, freeze_bn=freeze_bn)
    size = (data.crop, data.crop) if data.kind != "hdf5" else shape[2:]
    batches = {"TRAIN": data.batch, "TEST": data.test_batch}
    return made, {name: {"data": (n, shape[1], *size), "label": (n,)} for name, n in batches.items()}


def _image_shape(net: Net, given: Mapping[str, Shape]) -> Shape:
    from prototxt_gen.analysis import analyse
    from prototxt_gen.net.lowering_checks import net_inputs

    test = net.at("TEST")
    shapes = [analyse(test, given).shapes.get(value) for value in net_inputs(test)]
    if len(shapes) == 1 and shapes[0] is not None and len(shapes[0]) == 4:
        return shapes[0]
    raise NetError(f"{net.source}: a net with one input of known shape N×C×H×W is needed; --shape gives one")


def _data(shape: Shape, chosen: dict[str, Any]) -> DataOptions:
    """Return the settings of the data layers: those of the options, the others from the input's shape."""
    from prototxt_gen.passes.to_train_val import DataOptions

    _, channels, height, width = shape
    if height != width and chosen.get("kind") != "hdf5":
        raise NetError(
            f"the input is {height}x{width}, and Caffe's data layers crop squares; --data-layer hdf5 takes it as it is"
        )
    mean = DataOptions.mean if channels == len(DataOptions.mean) else (sum(DataOptions.mean) / len(DataOptions.mean),)
    known: dict[str, Any] = {"crop": height, "channels": channels, "mean": mean}
    return DataOptions(**known | chosen)


def _with_bn(net: Net, style: str | None) -> Net:
    from prototxt_gen.passes.bn_merge import merge_batch_norms
    from prototxt_gen.passes.bn_split import split_batch_norms
    from prototxt_gen.weights import Weights

    if style is None:
        return net
    made, _ = (merge_batch_norms if style == "merged" else split_batch_norms)(net, Weights({}))
    return made


def _for_fork(net: Net, name: str | None) -> Net:
    from prototxt_gen.passes.to_dialect import to_dialect
    from prototxt_gen.schema.dialect import find_dialect

    return net if name is None else to_dialect(net, find_dialect(name))
