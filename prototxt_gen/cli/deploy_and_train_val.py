"""`--to-deploy` and `--to-train-val` of `convert prototxt`: the passes, their options, and the check of the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from prototxt_gen.cli.param_types import parse_dims
from prototxt_gen.cli.read_net import phase_or_default, shapes_from_options
from prototxt_gen.common.errors import NetError
from prototxt_gen.common.printable import safe, safe_lines

if TYPE_CHECKING:
    from prototxt_gen.ir import Net, Shape
    from prototxt_gen.passes.to_train_val import DataOptions

_NO_TRANSFORMATION = {
    "hdf5": ("crop", "mirror", "mean", "scale", "resize"),
    "input": ("mirror", "mean", "scale", "resize"),
    "lmdb": ("resize",),
    "python": ("resize",),
}
"""Options that have no effect on a kind of data layer: Caffe's HDF5Data and Input layers transform nothing."""


class NetMode(NamedTuple):
    """The values of --phase, --stage and --level; without --phase, `phase` is None."""

    phase: str | None
    stages: tuple[str, ...]
    level: int


def deploy_from_options(whole: Net, mode: NetMode, size: str | None, shapes: tuple[str, ...]) -> Net:
    """Return the deploy net of a train_val, and print notes on heads left out, shapes and preprocessing."""
    from prototxt_gen.passes.to_deploy import deployment_of

    phase = mode.phase or _deploy_phase(whole, mode)
    source = _in_mode(whole, phase, mode)
    given = shapes_from_options(source, size, shapes)
    explicit = {text.partition("=")[0] for text in shapes}
    whole_size = size is not None and len(parse_dims(size, "--input-size")) > 3
    free = () if whole_size else set(given) - explicit
    done = deployment_of(whole, given, phase=phase, stages=mode.stages, level=mode.level, free_batch=free)
    _echo_preprocessing(source)
    for remark in done.remarks:
        click.echo(f"note: {safe_lines(remark)}", err=True)
    return replace(done.net, source=whole.source)


def _deploy_phase(whole: Net, mode: NetMode) -> str:
    """Return TEST, or the file's phase if TEST has nothing but data layers."""
    test = _in_mode(whole, "TEST", mode)
    return "TEST" if any(layer.bottoms for layer in test.layers) else phase_or_default(whole, None)


def _in_mode(whole: Net, phase: str, mode: NetMode) -> Net:
    return whole.at(phase, (*whole.params.state.stage, *mode.stages), mode.level)


def _echo_preprocessing(net: Net) -> None:
    from prototxt_gen.schema.caffe_proto import TransformationParameter

    for layer in net.layers:
        transform = layer.get(TransformationParameter)
        names = [name for name in ("scale", "mean_file", "mean_value") if transform.has(name)]
        if names:
            where = f"layer {safe(layer.name)!r} ({safe(layer.type)})"
            fields = safe(", ".join(f"{name} {getattr(transform, name)}" for name in names))
            click.echo(f"note: {where} applied {fields}; apply the same to the images for the deploy net", err=True)


def train_val_from_options(
    whole: Net, mode: NetMode, size: str | None, shapes: tuple[str, ...], chosen: dict[str, Any], freeze_bn: bool
) -> tuple[Net, Mapping[str, Mapping[str, Shape]]]:
    """Return the train_val of a deploy net, and the shapes of its data layers' tops in each phase."""
    from prototxt_gen.analysis import analyse
    from prototxt_gen.net.lowering_checks import net_inputs
    from prototxt_gen.passes.to_train_val import last_softmax, to_train_val, training_shapes

    test = _in_mode(whole, mode.phase or "TEST", mode)
    given = shapes_from_options(test, size, shapes)
    inputs = net_inputs(test)
    found = [analyse(test, given).shapes.get(value) for value in inputs]
    shape = found[0] if len(found) == 1 else None
    if shape is None or (len(shape) != 4 and chosen.get("kind") != "hdf5"):
        raise NetError(f"{whole.source}: a net with one input of known shape N×C×H×W is needed; --shape gives one")
    if test.inputs:
        test = replace(test, inputs=(replace(test.inputs[0], shape=shape),))
    data = _data_options(shape, chosen)
    made = to_train_val(test, data, freeze_bn=freeze_bn)
    _echo_untrained(test, {value.blob for value in last_softmax(test).tops})
    if data.kind in ("lmdb", "image-list", "python") and not chosen.keys() & {"mean", "scale"}:
        click.echo("note: no mean and no scale are applied; --mean and --scale add them", err=True)
    return made, training_shapes(test, data)


def _echo_untrained(net: Net, trained: set[str]) -> None:
    others = [repr(value.blob) for value in net.outputs if value.blob not in trained and value not in net.inputs]
    if others:
        click.echo(f"warning: {safe(', '.join(others))}: no loss trains this output of the net", err=True)


def _data_options(shape: Shape, chosen: dict[str, Any]) -> DataOptions:
    """Return the settings of the data layers: those of the options, the others from the input's shape.

    The images are neither mirrored nor is a mean or scale applied, unless options say so.
    """
    from prototxt_gen.passes.to_train_val import DataOptions

    kind = chosen.get("kind", DataOptions.kind)
    unused = [name for name in _NO_TRANSFORMATION.get(kind, ()) if name in chosen]
    if unused:
        raise NetError(f"--{unused[0]} has no effect with --data-layer {kind}, whose data layer does not do it")
    channels, height, width = shape[1:] if len(shape) == 4 else (1, 1, 1)
    if height != width and kind != "hdf5":
        raise NetError(
            f"the input is {height}x{width}, and Caffe's data layers crop squares; --data-layer hdf5 takes it as it is"
        )
    mean = chosen.get("mean", ())
    if len(mean) not in (0, 1, channels):
        raise NetError(
            f"--mean gives {len(mean)} numbers for {channels} channels; one number, or one for each, is needed"
        )
    known: dict[str, Any] = {"crop": height, "channels": channels, "mean": (), "mirror": False}
    return DataOptions(**known | chosen)


def refuse_failing_check(text: str, source: str, shapes: Mapping[str, Mapping[str, Shape]]) -> None:
    """Raise NetError if `check` finds errors in a net's text; print a warning for layers that could not be checked."""
    from prototxt_gen import checks
    from prototxt_gen.analysis import analyse
    from prototxt_gen.net.prototxt_reader import net_from_tree
    from prototxt_gen.text import parse

    tree = parse(text)
    net = net_from_tree(tree, source)
    found = checks.check_net(net, tree)
    for phase, known in shapes.items():
        found += checks.check_net(net, tree, [checks.NetMode(phase)], input_shapes=lambda _, known=known: known)  # type: ignore[misc]
    errors = dict.fromkeys(f"layer {p.layer!r} ({p.type}): {p.message}" if p.type else p.message
                           for p in found if p.severity == checks.ERROR)  # fmt: skip
    if errors:
        raise NetError(f"{source}: nothing is written, since the result has errors:\n  " + "\n  ".join(errors))
    unknown = dict.fromkeys(
        str(row.error)
        for phase in shapes or ("TEST",)
        for row in analyse(net.at(phase), shapes.get(phase)).rows
        if row.error is not None and not row.blocked
    )
    if unknown:
        click.echo(f"warning: the result is checked only in part: {safe_lines('; '.join(unknown))}", err=True)
