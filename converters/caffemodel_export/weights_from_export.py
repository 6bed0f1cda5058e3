"""Back to Caffe: the weights of a model that we wrote, for PyTorch or as ONNX, as blobs of its net."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from converters.common.loading_errors import opening
from converters.common.net_with_weights import Reading, open_subject
from converters.common.state_dict import MOST_NAMED, tensors_of
from prototxt_gen.analysis import Analysis, Row
from prototxt_gen.common.errors import PrototxtGenError, WeightsError
from prototxt_gen.ir import Net, show
from prototxt_gen.layers.normalization.batch_norm import BatchNormParameter
from prototxt_gen.layers.normalization.bn import BNParameter
from prototxt_gen.net.lowering_checks import ready
from prototxt_gen.weights import Weights

Array = np.ndarray[Any, Any]


def read_back(path: Path, net: Net | None, how: Reading | None = None) -> tuple[Analysis, Weights]:
    """Return the net and weights of a model: a folder of ours, .safetensors, .pt or .pth, or .onnx.

    `net` is the prototxt's, and is made ready as for the way there; None takes the one that the model itself carries.
    """
    if path.is_dir():
        path = path / "model.safetensors"
    if not path.is_file():
        raise PrototxtGenError(f"{path}: no such file")
    given = open_subject(net, Weights({}), how).analysis if net is not None else None
    with opening(path):
        return _from_onnx(path, given) if path.suffix == ".onnx" else _from_torch(path, given)


def _analysis(text: str | None, given: Analysis | None, path: Path) -> Analysis:
    """Return the analysis of the net given, or of the prototxt in the model's metadata: of one phase, and no rules."""
    if given is not None:
        return given
    if not text:
        raise PrototxtGenError(f"{path}: it does not carry its net; give the prototxt with --net")
    from prototxt_gen.net.prototxt_reader import parse_net

    return ready(parse_net(text, f"the prototxt in {path}"))


def _from_torch(path: Path, given: Analysis | None) -> tuple[Analysis, Weights]:
    import torch

    from converters.pytorch_export.output_files import EPS_KEY, PROTOTXT_KEY, checked_metadata
    from prototxt_gen.runtime.torch_net import TorchNet

    stored = path.suffix == ".safetensors"
    told = checked_metadata(path) if stored else {}
    analysis = _analysis(told.get(PROTOTXT_KEY), given, path)
    module = TorchNet(analysis)
    tensors = tensors_of(path, stored)
    with torch.no_grad():
        _load(module, tensors, json.loads(told.get(EPS_KEY, "{}")), path)
    return analysis, replace(module.dump_weights(), remarks=tuple(_remarks(module, tensors)))


def _remarks(module: Any, tensors: Mapping[str, Any]) -> Iterator[str]:
    spare = sorted(tensors.keys() - module.state_dict().keys())
    if spare:
        more = f" and {len(spare) - MOST_NAMED} more" if len(spare) > MOST_NAMED else ""
        yield f"the file has tensors that the net does not ask for: {', '.join(spare[:MOST_NAMED])}{more}"


def _load(module: Any, tensors: Mapping[str, Any], eps: Mapping[str, float], path: Path) -> None:
    """Put tensors into a TorchNet. What Caffe keeps and torch's batch normalisation does not, is set to fit."""
    wanted = module.state_dict()
    ours = {name for name in wanted if name.rsplit(".", 1)[-1] in ("factor", "num_batches_tracked")}
    faults = [f"{name} is missing" for name in wanted if name not in tensors and name not in ours]
    inner = dict(module.named_modules())
    faults += [f"{name} is too much: the net's layer has none" for name in tensors if _is_too_much(name, inner)]
    faults += [
        f"{name} is {tuple(tensors[name].shape)}, the net has {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    if faults:
        raise WeightsError(f"{path} does not fit {module.net.source or module.net.name}:\n  " + "\n  ".join(faults))
    for name in ours:
        if name.endswith(".factor"):
            wanted[name].fill_(1)
    module.load_state_dict(wanted | {name: tensor for name, tensor in tensors.items() if name in wanted})
    for step in module.lowered_layers:
        if step.layer.name in eps and hasattr(step.module, "eps"):
            step.module.eps = eps[step.layer.name]


def _is_too_much(name: str, modules: Mapping[str, Any]) -> bool:
    """Whether a tensor is one that a layer of the net could have, and has not: a bias, or the scale of a BatchNorm."""
    owner, _, own = name.rpartition(".")
    return owner in modules and own in modules[owner]._parameters and modules[owner]._parameters[own] is None


def _from_onnx(path: Path, given: Analysis | None) -> tuple[Analysis, Weights]:
    import onnx

    from converters.onnx_export.net_to_onnx import PROTOTXT_KEY, ROLES_KEY

    try:
        model = onnx.load(str(path))
    except Exception as error:  # protobuf and onnx raise their own kinds
        raise WeightsError(f"{path}: not an ONNX model: {error}") from None
    told = {entry.key: entry.value for entry in model.metadata_props}
    if ROLES_KEY not in told:
        raise WeightsError(f"{path}: not an ONNX model that prototxt-gen wrote: it does not tell which array is which")
    analysis = _analysis(told.get(PROTOTXT_KEY), given, path)
    return analysis, _Onnx(model, json.loads(told[ROLES_KEY]), path).weights(analysis)


class _Onnx:
    def __init__(self, model: Any, roles: Mapping[str, Mapping[str, str]], path: Path) -> None:
        from onnx import numpy_helper

        self.roles, self.path = roles, path
        self.arrays = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
        self.nodes = {node.name: node for node in model.graph.node}

    def weights(self, analysis: Analysis) -> Weights:
        made: dict[str, dict[str, Array]] = {}
        faults: list[str] = []
        for row in analysis.rows:
            if row.blobs:
                found = self._normalised(row.layer) or self._by_role(row.layer.name)
                wrong = list(_faults(row, found))
                made[row.layer.name] = {} if wrong else _shaped(row, found)
                faults += wrong
        if faults:
            raise WeightsError(f"{self.path}: not there as Caffe has it:\n  " + "\n  ".join(faults))
        return Weights(made)

    def _by_role(self, layer: str) -> dict[str, Array]:
        from converters.onnx_export.net_to_onnx import utf8

        named = self.roles.get(utf8(layer), {})
        return {role: self.arrays[name] for role, name in named.items() if name in self.arrays}

    def _normalised(self, layer: Any) -> dict[str, Array] | None:
        """Return the blobs of a layer that is a BatchNormalization; the eps that it adds goes back to the layer's."""
        from onnx import helper

        from converters.onnx_export.net_to_onnx import utf8

        node = self.nodes.get(f"{utf8(layer.name)}/BatchNormalization_node")
        if node is None or layer.type not in ("BN", "BatchNorm"):
            return None
        scale, bias, mean, variance = (self.arrays[name] for name in node.input[1:5])
        own = layer.get(BNParameter if layer.type == "BN" else BatchNormParameter)
        added = next(helper.get_attribute_value(a) for a in node.attribute if a.name == "epsilon")
        kept = variance
        if isinstance(own, BatchNormParameter) and not own.add_eps_before_sqrt:
            kept = np.square(np.sqrt(variance.astype("float64") + added) - own.eps).astype("float32")
        elif added != float(np.float32(own.eps)):
            kept = (variance.astype("float64") + added - own.eps).astype("float32")
        if layer.type == "BN":
            return {"slope": scale, "bias": bias, "mean": mean, "variance": kept}
        found = {"mean": mean, "variance": kept, "factor": np.ones(1, "float32")}
        is_merged = "scale" in self.roles.get(utf8(layer.name), {})
        return found | {"scale": scale, "bias": bias} if is_merged else found


def _shaped(row: Row, found: Mapping[str, Array]) -> dict[str, Array]:
    """Return the blobs in Caffe's shapes; roles that the prototxt does not show have that of the first."""
    shapes = {role: spec.shape for role, spec in row.blobs.items()}
    usual = next(iter(shapes.values()))
    return {role: array.reshape(shapes.get(role, usual)) for role, array in found.items()}


def _faults(row: Row, found: Mapping[str, Array]) -> Iterator[str]:
    """Yield what is missing of a layer's blobs, or is of another size."""
    who = f"layer {row.layer.name!r} ({row.layer.type})"
    missing = [role for role in row.blobs if role not in found and role != "inverse_std"]
    if missing:
        yield f"{who}: its {', '.join(missing)}"
    for role, spec in row.blobs.items():
        if role in found and found[role].size != math.prod(spec.shape):
            yield f"{who}: its {role} is {show(found[role].shape)}, the net has {show(spec.shape)}"
