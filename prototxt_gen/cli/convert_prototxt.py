"""`prototxt-gen convert prototxt`: a net in the current format, for another fork, as a deploy net or a train_val."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prototxt_gen.cli import options
from prototxt_gen.cli.command import Command
from prototxt_gen.cli.deploy_and_train_val import (
    NetMode,
    deploy_from_options,
    refuse_failing_check,
    train_val_from_options,
)
from prototxt_gen.cli.output import echo_files
from prototxt_gen.cli.read_net import net_in_phase, read_all_phases, shapes_from_options
from prototxt_gen.cli.renamed_options import replaced_option
from prototxt_gen.common.printable import safe

if TYPE_CHECKING:
    from prototxt_gen.ir import Net, Shape


@click.command(
    cls=Command,
    examples=[
        "prototxt-gen convert prototxt train_val.prototxt -o deploy.prototxt --to-deploy",
        "prototxt-gen convert prototxt net.prototxt -o ssd.prototxt --to-dialect ssd",
    ],
)
@options.net_argument
@click.option("-o", "--output", type=options.OUTPUT_FILE, required=True, help="Output file; - is stdout.")
@click.option("--to-deploy", is_flag=True,
              help="Turn a train_val into a deploy net: data layers become inputs, SoftmaxWithLoss becomes "
              "Softmax. The batch size becomes 1, unless --shape says otherwise or a layer needs more.")  # fmt: skip
@click.option("--keep-batch-statistics", is_flag=True,
              help="With --to-deploy, keep use_global_stats: false of BatchNorm layers; by default it becomes true, so "
              "that they normalise by the learned statistics.")  # fmt: skip
@click.option("--to-train-val", is_flag=True,
              help="Turn a deploy net into a train_val: add data layers, fillers, loss and accuracy.")  # fmt: skip
@options.data_layer_options(
    kind="lmdb", batch="32", test_batch="25", crop="the input size", mean="none", mirror="not mirrored"
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
@options.phase_option("TEST with --to-deploy and --to-train-val, else the layers of all phases")
@options.stage
@options.level
@options.input_size
@options.shape
@options.crop_rule
@options.force
def prototxt(
    net: Path,
    output: Path,
    to_deploy: bool,
    keep_batch_statistics: bool,
    to_train_val: bool,
    freeze_bn: bool,
    to_dialect: str | None,
    bn: str | None,
    phase: str | None,
    stages: tuple[str, ...],
    level: int,
    size: str | None,
    shapes: tuple[str, ...],
    crop_rule: str | None,
    force: bool,
    **data: Any,
) -> None:
    """Rewrite NET in the current format (V0 and V1 are upgraded), with the changes that the options ask for.

    Comments are not kept. The options of data layers are for --to-train-val. What --to-deploy and --to-train-val write
    passes `check`; else nothing is written.
    """
    from prototxt_gen.common.files import refuse_overwriting, write_text
    from prototxt_gen.net.crop_alignment import with_crop_offsets_in_all_phases

    if to_deploy and to_train_val:
        raise click.UsageError("--to-deploy or --to-train-val, not both")
    chosen = {name: value for name, value in data.items() if value is not None}
    if keep_batch_statistics and not to_deploy:
        raise click.UsageError("--keep-batch-statistics needs --to-deploy")
    if chosen and not to_train_val:
        raise click.UsageError("the options of data layers need --to-train-val")
    refuse_overwriting([output], force)
    whole = with_crop_offsets_in_all_phases(read_all_phases(net), crop_rule)
    mode = NetMode(phase.upper() if phase else None, stages, level)
    made = _one_phase(whole, mode)
    known: Mapping[str, Mapping[str, Shape]] = {}
    if to_deploy:
        made = _with_statistics(deploy_from_options(whole, mode, size, shapes), keep_batch_statistics)
    elif to_train_val:
        made, known = train_val_from_options(whole, mode, size, shapes, chosen, freeze_bn)
    else:
        given = shapes_from_options(net_in_phase(made, None, (), 0), size, shapes)
        known = {"TRAIN": given, "TEST": given}
    made = _for_fork(_with_bn(made, bn), to_dialect)
    text = _text(made, known)
    if to_deploy or to_train_val:
        refuse_failing_check(text, whole.source, known)
    comment = "" if to_train_val else _preprocessing_comment(whole, mode, to_deploy)
    write_text(output, comment + text, force)
    echo_files([output])


def _text(net: Net, given: Mapping[str, Mapping[str, Shape]]) -> str:
    from prototxt_gen.analysis import top_shapes
    from prototxt_gen.net.render import net_text

    return net_text(net, top_shapes(net, given))


def _preprocessing_comment(net: Net, mode: NetMode, to_deploy: bool) -> str:
    """Return the comment that carries the preprocessing of the images into the output; "" if nothing is known.

    Only a deploy net has it: that of a train_val is in its data layers, of TRAIN if it has none for TEST.
    """
    from converters.common.preprocessing import preprocessing_of_net
    from prototxt_gen.net.preprocessing_comment import preprocessing_comment, read_preprocessing_comment

    if not to_deploy:
        return preprocessing_comment(read_preprocessing_comment(net.source))
    phases = (mode.phase or "TEST", "TRAIN")
    found = (preprocessing_of_net(net_in_phase(net, phase, mode.stages, mode.level)) for phase in phases)
    return next((known.prototxt_comment() for known in found if known), "")


def _one_phase(net: Net, mode: NetMode) -> Net:
    """Return the net of --phase, --stage and --level without include and exclude rules; all of it without them."""
    if not mode.phase and not mode.stages and not mode.level:
        return net
    selected = net_in_phase(net, mode.phase, mode.stages, mode.level)
    return selected.map(lambda layer: replace(layer, params=layer.params.replace(include=None, exclude=None)))


def _with_statistics(net: Net, keep: bool) -> Net:
    """Return the deploy net with use_global_stats: true in place of false, with a note; unchanged with `keep`."""
    from prototxt_gen.passes.global_statistics import with_global_statistics

    made, changed = with_global_statistics(net)
    if not changed or keep:
        return net
    others = f" and {len(changed) - 1} more layers" if len(changed) > 1 else ""
    click.echo(
        f"note: layer {safe(changed[0])!r} (BatchNorm){others}: use_global_stats: false is now true, so that the "
        "learned statistics are used; --keep-batch-statistics keeps it",
        err=True,
    )
    return made


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
