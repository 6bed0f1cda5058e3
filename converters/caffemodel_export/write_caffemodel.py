"""Writing a .caffemodel from whatever holds a net's weights: models that we wrote, weights of other ages and forks."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from converters.caffemodel_export.rewrite_bn import Rewritten, meant
from converters.caffemodel_export.weights_from_export import read_back
from converters.common.net_with_weights import Reading, understood
from converters.common.staged_output import staged
from converters.write_models import Conversion
from prototxt_gen import caffemodel, weights
from prototxt_gen.analysis import Analysis
from prototxt_gen.common.errors import PrototxtGenError
from prototxt_gen.common.files import refuse_overwriting, write_text
from prototxt_gen.ir import Net
from prototxt_gen.net.lowering_checks import ready
from prototxt_gen.net.phase_rules import phases_of
from prototxt_gen.schema.dialect import dialect
from prototxt_gen.weights import Weights

_MODELS = (".onnx", ".safetensors", ".pt", ".pth")


@dataclass(frozen=True)
class Asked:
    """How the net and a .caffemodel are to be read, and what is to be written."""

    how: Reading = field(default_factory=Reading)
    to_dialect: str = "bvlc"
    to_statistic: str | None = None


def write_back(
    model: Path, out: Path, net: Net | None, asked: Asked, net_out: Path | None = None, force: bool = False
) -> Conversion:
    """Write a model's weights as .caffemodel (or .h5), and its net to `net_out`.

    `net` is the prototxt's, with the layers of all phases.
    """
    refuse_overwriting([path for path in (out, net_out) if path is not None], force)
    if not model.exists():
        raise PrototxtGenError(f"{model}: no such file")
    is_ours = model.is_dir() or model.suffix in _MODELS
    if not is_ours and net is None:
        if net_out is not None or asked.to_dialect != "bvlc" or asked.to_statistic:
            raise PrototxtGenError(f"{model}: another fork's numbers, or the net, need the prototxt: give --net")
        return Conversion((_renewed(model, out, force),), None, ())
    analysis, found = read_back(model, net, asked.how) if is_ours or net is None else _read(model, net, asked.how)
    target = dialect(asked.to_dialect)
    made = meant(Rewritten(analysis.net, analysis, found, found.remarks), asked.to_statistic or "", target)
    with staged(out, force) as path:
        weights.write(path, analysis, made.weights, target)
    return Conversion((out, *_write_net(analysis, net_out, force)), None, made.remarks)


def _read(model: Path, net: Net, how: Reading) -> tuple[Analysis, Weights]:
    one = net.at(phases_of(net)[-1], net.params.state.stage)
    analysis = ready(understood(one, how.ignored)[0], how.shapes)
    return analysis, weights.read(model, analysis, how.dialect, how.statistic)


def _write_net(analysis: Analysis, path: Path | None, force: bool) -> list[Path]:
    if path is None:
        return []
    from prototxt_gen.net.render import net_text

    write_text(path, net_text(analysis.net), force)
    return [path]


def _renewed(model: Path, out: Path, force: bool) -> Path:
    """Write weights of any age as V2, or as HDF5, without knowing their net."""
    stored = caffemodel.read(model)
    with staged(out, force) as path:
        caffemodel.write(path, stored.layers, stored.name)
    return out
