"""Exported model back to Caffe: the weights in an ONNX or PyTorch file that we wrote, as blobs of its net.

The model may have been trained further since it was exported.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from converters.common.loading_errors import translate_loading_errors
from converters.common.names import listed_names, valid_utf8
from converters.common.net_with_weights import ReadOptions, read_net_with_weights
from converters.common.state_dict import read_tensors
from prototxt_gen.analysis import Analysis, Row
from prototxt_gen.common.errors import PrototxtGenError, WeightsError
from prototxt_gen.ir import Layer, Net, show
from prototxt_gen.layers.normalization.batch_norm import BatchNormParameter
from prototxt_gen.layers.normalization.bn import BNParameter
from prototxt_gen.net.lowering_checks import analyse_for_conversion
from prototxt_gen.weights import Weights

Array = np.ndarray[Any, Any]


def read_exported_weights(path: Path, net: Net | None, options: ReadOptions | None = None) -> tuple[Analysis, Weights]:
    """Return the net and the weights of an exported model.

    `path`: a folder with model.safetensors, a .safetensors, .pt, .pth or .onnx file. `net`: the net of the prototxt,
    which is prepared in the same way as for an export; None uses the prototxt stored in the model. Raises
    PrototxtGenError if the file cannot be read or stores no net, and WeightsError if its arrays do not fit the net.
    """
    if path.is_dir():
        path = path / "model.safetensors"
    if not path.is_file():
        raise PrototxtGenError(f"{path}: no such file")
    analysis = read_net_with_weights(net, Weights({}), options).analysis if net is not None else None
    with translate_loading_errors(path):
        return _read_onnx(path, analysis) if path.suffix == ".onnx" else _read_torch(path, analysis)


def _stored_net(prototxt_text: str | None, path: Path) -> Analysis:
    """Return the analysis of the prototxt in a model's metadata, which has one phase only."""
    if not prototxt_text:
        raise PrototxtGenError(f"{path}: the net is not stored in it; give the prototxt with --net")
    from prototxt_gen.net.prototxt_reader import parse_net

    return analyse_for_conversion(parse_net(prototxt_text, f"the prototxt in {path}"))


def _read_torch(path: Path, analysis: Analysis | None) -> tuple[Analysis, Weights]:
    import torch

    from converters.pytorch_export.output_files import EPS_KEY, PROTOTXT_KEY, read_safetensors_metadata
    from prototxt_gen.runtime.torch_net import TorchNet

    is_safetensors = path.suffix == ".safetensors"
    metadata = read_safetensors_metadata(path) if is_safetensors else {}
    analysis = _stored_net(metadata.get(PROTOTXT_KEY), path) if analysis is None else analysis
    module = TorchNet(analysis)
    tensors = read_tensors(path, is_safetensors)
    with torch.no_grad():
        _load_into(module, tensors, json.loads(metadata.get(EPS_KEY, "{}")), path)
    return analysis, replace(module.dump_weights(), remarks=tuple(_unused_tensor_remarks(module, tensors)))


def _unused_tensor_remarks(module: Any, tensors: Mapping[str, Any]) -> Iterator[str]:
    unused = sorted(tensors.keys() - module.state_dict().keys())
    if unused:
        yield f"the file has tensors that the net does not use: {listed_names(unused)}"


def _load_into(module: Any, tensors: Mapping[str, Any], eps: Mapping[str, float], path: Path) -> None:
    """Load tensors into a TorchNet; `eps` by layer name.

    Blobs that only Caffe's batch normalisation has, such as the scale factor, get the values that suit the tensors.
    Raises WeightsError, which lists all tensors that do not fit.
    """
    state = module.state_dict()
    caffe_only = {name for name in state if name.rsplit(".", 1)[-1] in ("factor", "num_batches_tracked")}
    problems = [f"{name} is missing" for name in state if name not in tensors and name not in caffe_only]
    modules = dict(module.named_modules())
    problems += [
        f"{name} is superfluous: the net's layer has no such tensor"
        for name in tensors
        if _is_disabled_parameter(name, modules)
    ]
    problems += [
        f"{name} is {tuple(tensors[name].shape)}, the net has {tuple(tensor.shape)}"
        for name, tensor in state.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    if problems:
        raise WeightsError(f"{path} does not fit {module.net.source or module.net.name}:\n  " + "\n  ".join(problems))
    for name in caffe_only:
        if name.endswith(".factor"):
            state[name].fill_(1)
    module.load_state_dict(state | {name: tensor for name, tensor in tensors.items() if name in state})
    for step in module.lowered_layers:
        if step.layer.name in eps and hasattr(step.module, "eps"):
            step.module.eps = eps[step.layer.name]


def _is_disabled_parameter(name: str, modules: Mapping[str, Any]) -> bool:
    """Whether a tensor belongs to a parameter that the module could have but lacks, such as a bias."""
    owner, _, parameter = name.rpartition(".")
    return (
        owner in modules and parameter in modules[owner]._parameters and modules[owner]._parameters[parameter] is None
    )


def _read_onnx(path: Path, analysis: Analysis | None) -> tuple[Analysis, Weights]:
    import onnx

    from converters.onnx_export.net_to_onnx import PROTOTXT_KEY, ROLES_KEY

    try:
        model = onnx.load(str(path))
    except Exception as error:  # protobuf and onnx raise errors of different classes
        raise WeightsError(f"{path}: not an ONNX model: {error}") from None
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if ROLES_KEY not in metadata:
        raise WeightsError(f"{path}: not an ONNX model that prototxt-gen wrote: its metadata lacks {ROLES_KEY!r}")
    analysis = _stored_net(metadata.get(PROTOTXT_KEY), path) if analysis is None else analysis
    return analysis, _OnnxWeights(model, json.loads(metadata[ROLES_KEY]), path).weights(analysis)


class _OnnxWeights:
    """The arrays of an ONNX model. `roles`: the initializer that holds a blob, by layer name and blob role."""

    def __init__(self, model: Any, roles: Mapping[str, Mapping[str, str]], path: Path) -> None:
        from onnx import numpy_helper

        self.roles, self.path = roles, path
        self.arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        self.nodes = {node.name: node for node in model.graph.node}

    def weights(self, analysis: Analysis) -> Weights:
        """Return the blobs of all layers. Raises WeightsError, which lists all that are missing or of another size."""
        blobs: dict[str, dict[str, Array]] = {}
        problems: list[str] = []
        for row in analysis.rows:
            if row.blobs:
                arrays = self._batch_norm_blobs(row.layer) or self._blobs_by_role(row.layer.name)
                row_problems = list(_problems(row, arrays))
                blobs[row.layer.name] = {} if row_problems else _in_caffe_shapes(row, arrays)
                problems += row_problems
        if problems:
            raise WeightsError(f"{self.path}: missing, or of another size than in Caffe:\n  " + "\n  ".join(problems))
        return Weights(blobs)

    def _blobs_by_role(self, layer_name: str) -> dict[str, Array]:
        initializers = self.roles.get(valid_utf8(layer_name), {})
        return {role: self.arrays[name] for role, name in initializers.items() if name in self.arrays}

    def _batch_norm_blobs(self, layer: Layer) -> dict[str, Array] | None:
        """Return the blobs of a layer that became a BatchNormalization node; None if it did not.

        The variance is corrected where the node's epsilon differs from the layer's eps.
        """
        from onnx import helper

        node = self.nodes.get(f"{valid_utf8(layer.name)}/BatchNormalization_node")
        if node is None or layer.type not in ("BN", "BatchNorm"):
            return None
        scale, bias, mean, variance = (self.arrays[name] for name in node.input[1:5])
        params: Any = layer.get(BNParameter if layer.type == "BN" else BatchNormParameter)
        epsilon = next(helper.get_attribute_value(a) for a in node.attribute if a.name == "epsilon")
        if isinstance(params, BatchNormParameter) and not params.add_eps_before_sqrt:
            variance = np.square(np.sqrt(variance.astype("float64") + epsilon) - params.eps).astype("float32")
        elif epsilon != float(np.float32(params.eps)):
            variance = (variance.astype("float64") + epsilon - params.eps).astype("float32")
        if layer.type == "BN":
            return {"slope": scale, "bias": bias, "mean": mean, "variance": variance}
        blobs = {"mean": mean, "variance": variance, "factor": np.ones(1, "float32")}
        has_merged_scale = "scale" in self.roles.get(valid_utf8(layer.name), {})
        return blobs | {"scale": scale, "bias": bias} if has_merged_scale else blobs


def _in_caffe_shapes(row: Row, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return the arrays in Caffe's shapes, by role; a role that the analysis lacks gets the shape of the first blob."""
    shapes = {role: spec.shape for role, spec in row.blobs.items()}
    first_shape = next(iter(shapes.values()))
    return {role: array.reshape(shapes.get(role, first_shape)) for role, array in arrays.items()}


def _problems(row: Row, arrays: Mapping[str, Array]) -> Iterator[str]:
    """Yield a sentence for the missing blobs of a layer, and one for each blob of another size."""
    where = f"layer {row.layer.name!r} ({row.layer.type})"
    missing = [role for role in row.blobs if role not in arrays and role != "inverse_std"]
    if missing:
        yield f"{where}: its {', '.join(missing)}"
    for role, spec in row.blobs.items():
        if role in arrays and arrays[role].size != math.prod(spec.shape):
            yield f"{where}: its {role} is {show(arrays[role].shape)}, the net has {show(spec.shape)}"
