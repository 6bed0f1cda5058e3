"""Writing a .caffemodel or .caffemodel.h5 from exported models (ONNX, PyTorch) or from old or a fork's weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from converters.caffemodel_export.rewrite_bn import RewrittenNet, with_bn_statistic
from converters.caffemodel_export.weights_from_export import read_exported_weights
from converters.common.harmless_fields import without_harmless_fields
from converters.common.net_with_weights import ReadOptions
from converters.common.staged_output import staged_output
from converters.write_models import ConversionResult
from prototxt_gen import caffemodel, weights
from prototxt_gen.analysis import Analysis
from prototxt_gen.common.errors import PrototxtGenError
from prototxt_gen.common.files import refuse_overwriting, write_text
from prototxt_gen.ir import Net
from prototxt_gen.net.lowering_checks import analyse_for_conversion
from prototxt_gen.net.phase_rules import intended_phases
from prototxt_gen.schema.dialect import find_dialect
from prototxt_gen.weights import Weights

_EXPORT_SUFFIXES = (".onnx", ".safetensors", ".pt", ".pth")


@dataclass(frozen=True)
class CaffemodelOptions:
    """Options for writing a .caffemodel.

    `read`: how to read the net and weights. `to_dialect`: the Caffe fork that will read the output. `to_statistic`:
    content of the fourth blob of BN, "inverse_std" or "variance"; None for the one that the fork uses.
    """

    read: ReadOptions = field(default_factory=ReadOptions)
    to_dialect: str = "bvlc"
    to_statistic: str | None = None


def write_caffemodel(
    source: Path,
    out: Path,
    net: Net | None,
    options: CaffemodelOptions,
    net_out: Path | None = None,
    force: bool = False,
) -> ConversionResult:
    """Write the weights of `source` to `out`, a .caffemodel or .caffemodel.h5, and the net to `net_out`.

    `source`: an exported model (folder, .onnx, .safetensors, .pt or .pth), or a .caffemodel or .h5. `net`: the net
    with the layers of all phases; None uses the one stored in an exported model. Without a net a .caffemodel is only
    rewritten in the current format. Raises PrototxtGenError, WeightsError or NetError.
    """
    refuse_overwriting([path for path in (out, net_out) if path is not None], force)
    if not source.exists():
        raise PrototxtGenError(f"{source}: no such file")
    is_export = source.is_dir() or source.suffix in _EXPORT_SUFFIXES
    if not is_export and net is None:
        if net_out is not None or options.to_dialect != "bvlc" or options.to_statistic:
            raise PrototxtGenError(
                f"{source}: the net is needed to write weights for another fork, or to write the net: give --net"
            )
        return ConversionResult((_rewrite_in_current_format(source, out, force),), None, ())
    analysis, found = (
        read_exported_weights(source, net, options.read)
        if is_export or net is None
        else _read_caffemodel(source, net, options.read)
    )
    target = find_dialect(options.to_dialect)
    rewritten = RewrittenNet(analysis.net, analysis, found, found.remarks)
    rewritten = with_bn_statistic(rewritten, options.to_statistic or "", target)
    with staged_output(out, force) as path:
        weights.write(path, analysis, rewritten.weights, target)
    return ConversionResult((out, *_write_net(analysis, net_out, force)), None, rewritten.remarks)


def _read_caffemodel(path: Path, net: Net, options: ReadOptions) -> tuple[Analysis, Weights]:
    phase_net = net.at(intended_phases(net)[-1], net.params.state.stage)
    analysis = analyse_for_conversion(without_harmless_fields(phase_net, options.ignore_fields)[0], options.shapes)
    return analysis, weights.read(path, analysis, options.dialect, options.bn_statistic)


def _write_net(analysis: Analysis, path: Path | None, force: bool) -> list[Path]:
    if path is None:
        return []
    from prototxt_gen.net.render import net_text

    write_text(path, net_text(analysis.net), force)
    return [path]


def _rewrite_in_current_format(source: Path, out: Path, force: bool) -> Path:
    """Write a .caffemodel of any format version as V2, or as HDF5. This needs no net."""
    stored = caffemodel.read(source)
    with staged_output(out, force) as path:
        caffemodel.write(path, stored.layers, stored.name)
    return out
