"""Back to Caffe: the weights of a model that we wrote, for PyTorch or as ONNX, as blobs of its net."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from converters.foreign import opening
from prototxt_gen.analysis import Analysis
from prototxt_gen.errors import PrototxtGenError, WeightsError
from prototxt_gen.ir import Net
from prototxt_gen.layers.batch_norm import BatchNormParameter
from prototxt_gen.layers.bn import BNParameter
from prototxt_gen.lowering import ready
from prototxt_gen.weights import Weights

Array = np.ndarray[Any, Any]


def read_back(path: Path, net: Net | None) -> tuple[Analysis, Weights]:
    """Return the net and weights of a model: a folder of ours, .safetensors, .pt or .pth, or .onnx.

    `net` is the prototxt's; None takes the one that the model itself carries.
    """
    if path.is_dir():
        path = path / "model.safetensors"
    if not path.is_file():
        raise PrototxtGenError(f"{path}: no such file")
    with opening(path):
        return _from_onnx(path, net) if path.suffix == ".onnx" else _from_torch(path, net)


def _net(text: str | None, net: Net | None, path: Path) -> Analysis:
    """Return the analysis of the net given, or of the prototxt in the model's metadata."""
    if net is None:
        if not text:
            raise PrototxtGenError(f"{path}: it does not carry its net; give the prototxt with --net")
        from prototxt_gen.reader import parse_net

        net = parse_net(text, f"the prototxt in {path}").at("TEST")
    return ready(net)


def _from_torch(path: Path, net: Net | None) -> tuple[Analysis, Weights]:
    import torch

    from converters.pytorch.file import EPS_KEY, PROTOTXT_KEY, checked_metadata
    from prototxt_gen.torch_net import TorchNet

    stored = path.suffix == ".safetensors"
    told = checked_metadata(path) if stored else {}
    analysis = _net(told.get(PROTOTXT_KEY), net, path)
    module = TorchNet(analysis)
    with torch.no_grad():
        _load(module, _tensors(path, stored), json.loads(told.get(EPS_KEY, "{}")), path)
    return analysis, module.dump_weights()


def _tensors(path: Path, stored: bool) -> Mapping[str, Any]:
    if stored:
        from safetensors.torch import load_file

        tensors: Mapping[str, Any] = load_file(path)
        return tensors
    import torch

    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever its unpickler meets
        raise WeightsError(f"{path}: not a state_dict that can be read safely: {error}") from None
    if not isinstance(found, dict):
        raise WeightsError(f"{path}: holds a {type(found).__name__}, not a state_dict")
    tensors = found.get("state_dict", found)
    return tensors if isinstance(tensors, dict) else found


def _load(module: Any, tensors: Mapping[str, Any], eps: Mapping[str, float], path: Path) -> None:
    """Put tensors into a TorchNet. What Caffe keeps and torch's batch normalisation does not, is set to fit."""
    wanted = module.state_dict()
    ours = {name for name in wanted if name.rsplit(".", 1)[-1] in ("factor", "num_batches_tracked")}
    faults = [f"{name} is missing" for name in wanted if name not in tensors and name not in ours]
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
    for step in module.steps:
        if step.layer.name in eps and hasattr(step.module, "eps"):
            step.module.eps = eps[step.layer.name]


def _from_onnx(path: Path, net: Net | None) -> tuple[Analysis, Weights]:
    import onnx

    from converters.onnx_net import PROTOTXT_KEY, ROLES_KEY

    try:
        model = onnx.load(str(path))
    except Exception as error:  # protobuf and onnx raise their own kinds
        raise WeightsError(f"{path}: not an ONNX model: {error}") from None
    told = {entry.key: entry.value for entry in model.metadata_props}
    if ROLES_KEY not in told:
        raise WeightsError(f"{path}: not an ONNX model that prototxt-gen wrote: it does not tell which array is which")
    analysis = _net(told.get(PROTOTXT_KEY), net, path)
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
                missing = [role for role in row.blobs if role not in found and role != "inverse_std"]
                if missing:
                    faults.append(f"layer {row.layer.name!r} ({row.layer.type}): its {', '.join(missing)}")
                shapes = {role: spec.shape for role, spec in row.blobs.items()}
                made[row.layer.name] = {
                    role: array.reshape(shapes.get(role) or next(iter(shapes.values())))
                    for role, array in found.items()
                }
        if faults:
            raise WeightsError(f"{self.path}: not there as Caffe has it:\n  " + "\n  ".join(faults))
        return Weights(made)

    def _by_role(self, layer: str) -> dict[str, Array]:
        from converters.onnx_net import utf8

        return {role: self.arrays[name] for role, name in self.roles.get(utf8(layer), {}).items()}

    def _normalised(self, layer: Any) -> dict[str, Array] | None:
        """Return the blobs of a layer that is a BatchNormalization; the eps that it adds goes back to the layer's."""
        from onnx import helper

        from converters.onnx_net import utf8

        node = self.nodes.get(f"{utf8(layer.name)}/BatchNormalization_node")
        if node is None or layer.type not in ("BN", "BatchNorm"):
            return None
        scale, bias, mean, variance = (self.arrays[name] for name in node.input[1:5])
        sums = variance.astype("float64") + next(helper.get_attribute_value(a) for a in node.attribute)
        if layer.type == "BN":
            eps = layer.get(BNParameter).eps
            kept = (sums - eps).astype("float32")
            return {"slope": scale, "bias": bias, "mean": mean, "variance": kept}
        kept = (sums - layer.get(BatchNormParameter).eps).astype("float32")
        found = {"mean": mean, "variance": kept, "factor": np.ones(1, "float32")}
        return found | {"scale": scale, "bias": bias} if layer.get(BatchNormParameter).merged else found
