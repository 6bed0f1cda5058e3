"""TorchNet: a PyTorch module that runs any Net, layer by layer.

Importing this module imports torch, so import it inside the function that needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from prototxt_gen import layers
from prototxt_gen.analysis import Analysis, Row
from prototxt_gen.common.errors import NetError, UnsupportedError
from prototxt_gen.ir import Layer, Value
from prototxt_gen.layers.base import BlobSpec, LayerType
from prototxt_gen.net.lowering_checks import computed_outputs, is_input_layer, lower_all, net_inputs
from prototxt_gen.runtime.module_tree import add_module_at_path
from prototxt_gen.runtime.parameter_location import ParameterLocation, find_parameters
from prototxt_gen.weights import Array, Weights

LayerFunction = Callable[..., Any]
Blobs = list["Tensor | None"]
"""The blobs of one forward pass by index; None before a blob is computed and after its last use."""


@dataclass(frozen=True)
class LoweredLayer:
    """One layer with its PyTorch module; `path` is the module's dotted path in the TorchNet.

    `parameter_locations` maps the role of each blob that the solver may learn to its parameter. The moving statistics
    of batch normalisation are buffers and are not included.
    """

    layer: Layer
    layer_type: LayerType
    module: nn.Module
    path: str
    roles: tuple[str, ...]
    specs: Mapping[str, BlobSpec]
    parameter_locations: dict[str, ParameterLocation]


class LayerCall(NamedTuple):
    """One layer's call in a forward pass: its function, and blobs by index.

    `detached_bottoms` are positions in `bottoms` that receive no gradient; `freed` are blobs that no later call uses.
    """

    function: LayerFunction
    bottoms: tuple[int, ...]
    tops: tuple[int, ...]
    detached_bottoms: tuple[int, ...]
    freed: tuple[int, ...]


def run_calls(calls: Iterable[LayerCall], blobs: Blobs) -> None:
    """Run the calls in order, reading from and writing to `blobs`. A blob is freed right after its last use."""
    for function, bottoms, tops, detached_bottoms, freed in calls:
        inputs: list[Any] = [blobs[index] for index in bottoms]
        for position in detached_bottoms:
            inputs[position] = inputs[position].detach()
        result = function(*inputs)
        for index, top in zip(tops, result if isinstance(result, (tuple, list)) else (result,), strict=False):
            blobs[index] = top
        for index in freed:
            blobs[index] = None


class TorchNet(nn.Module):
    """Runs a net of one phase in PyTorch.

    Its inputs are the inputs of the net and the tops of data layers that some layer uses. The modules form a tree that
    follows the slash-separated layer names. `train()` and `eval()` select the phase's behaviour. Layers that share
    blobs share tensors, unless `shared` is False.
    """

    def __init__(self, analysis: Analysis, weights: Weights | None = None, shared: bool = True) -> None:
        super().__init__()
        self.net = analysis.net
        self.analysis = analysis
        runnable = [row for row in analysis.rows if not is_input_layer(row.layer)]
        self.inputs = net_inputs(self.net)
        body = Analysis(self.net, tuple(runnable), analysis.shapes)
        self.lowered_layers: list[LoweredLayer] = []  # attributes are set first, so that no module gets their names
        self.blob_indices: dict[Value, int] = {}
        self._calls: dict[tuple[Value, ...], list[LayerCall]] = {}
        self.lowered_layers = lower_all(body, self._lower, "PyTorch")
        values = (*self.inputs, *(top for lowered in self.lowered_layers for top in lowered.layer.tops))
        self.blob_indices = {value: index for index, value in enumerate(values)}
        if shared:
            self._share_blobs()
        if weights is not None:
            self.load_weights(weights)
        self.train(False)

    def _lower(self, row: Row) -> LoweredLayer:
        layer_type = layers.layer_type_of(row.layer)
        shapes = [shape for shape in row.bottoms if shape is not None]
        module = layer_type.torch(row.layer, shapes)
        path = add_module_at_path(self, row.layer.name, module)
        locations = find_parameters(layer_type, module, row.blobs)
        return LoweredLayer(row.layer, layer_type, module, path, tuple(row.blobs), row.blobs, locations)

    def _share_blobs(self) -> None:
        """Make blobs with the same `param` name share one tensor, that of the first layer.

        Source: src/caffe/net.cpp Net::AppendParam.
        """
        owners: dict[str, tuple[LoweredLayer, str]] = {}
        for lowered in self.lowered_layers:
            for role, spec in zip(lowered.roles, lowered.layer.params.param, strict=False):
                default = (lowered, role)
                owner, owner_role = owners.setdefault(spec.name, default) if spec.name else default
                if (owner, owner_role) != (lowered, role):
                    _share_blob(owner, owner_role, lowered, role)

    def load_weights(self, weights: Weights) -> None:
        """Copy the blobs of the weights into the modules; layers that the weights lack keep their values."""
        for lowered in self.lowered_layers:
            blobs = weights.of(lowered.layer.name)
            if blobs:
                lowered.layer_type.load(lowered.module, blobs)

    def dump_weights(self) -> Weights:
        """Return the blobs of all modules in Caffe's shapes. The arrays may share the modules' memory."""
        blobs_by_layer: dict[str, dict[str, Array]] = {}
        for lowered in self.lowered_layers:
            if lowered.roles:
                blobs = lowered.layer_type.dump(lowered.module, list(lowered.roles))
                specs = list(lowered.specs.values())
                blobs_by_layer[lowered.layer.name] = {
                    role: array.reshape(spec.shape) for (role, array), spec in zip(blobs.items(), specs, strict=True)
                }
        return Weights(blobs_by_layer)

    @property
    def outputs(self) -> tuple[Value, ...]:
        """The net's outputs, without inputs and data-layer tops that no layer uses."""
        return computed_outputs(self.net)

    def run(self, inputs: Mapping[str, Tensor]) -> dict[Value, Tensor]:
        """Return every blob of the net by value, for inputs by blob name. Raises NetError if an input is missing."""
        for value in self.inputs:
            if value.blob not in inputs:
                raise NetError(f"{self.net.name}: input {value.blob!r} is not given")
        values = tuple(self.blob_indices)
        blobs = self.forward_blobs([inputs[value.blob] for value in self.inputs], values)
        return dict(zip(values, blobs, strict=True))

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the net's output, or a tuple of its outputs, for the inputs in the order of `self.inputs`."""
        outputs = self.forward_blobs(inputs, self.outputs)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def forward_blobs(self, inputs: Sequence[Tensor], wanted: tuple[Value, ...]) -> list[Tensor]:
        """Run a forward pass and return the wanted blobs, for the inputs in the order of `self.inputs`."""
        if wanted not in self._calls:
            self._calls[wanted] = self.layer_calls(wanted)
        blobs = self.initial_blobs(inputs)
        run_calls(self._calls[wanted], blobs)
        return self.select_blobs(blobs, wanted)

    def initial_blobs(self, inputs: Sequence[Tensor]) -> Blobs:
        """Return the blobs before a forward pass: the inputs, and None for all others."""
        return [*inputs, *[None] * (len(self.blob_indices) - len(inputs))]

    def select_blobs(self, blobs: Blobs, wanted: Iterable[Value]) -> list[Tensor]:
        """Return the wanted blobs after a forward pass."""
        selected = [blobs[self.blob_indices[value]] for value in wanted]
        return [blob for blob in selected if blob is not None]

    def layer_calls(
        self, wanted: Iterable[Value], function_of: Callable[[LoweredLayer], LayerFunction] | None = None
    ) -> list[LayerCall]:
        """Return the calls of a forward pass that keeps the wanted blobs.

        `function_of` returns the function to call for a layer. Default: the layer's module.
        """
        used_later = {self.blob_indices[value] for value in wanted}
        calls = []
        for lowered in reversed(self.lowered_layers):
            bottoms = tuple(self.blob_indices[value] for value in lowered.layer.bottoms)
            tops = tuple(self.blob_indices[value] for value in lowered.layer.tops)
            freed = tuple({*bottoms, *tops} - used_later)
            used_later.update(bottoms)
            detached = () if self.net.params.force_backward else _detached_bottoms(lowered.layer)
            function = function_of(lowered) if function_of else lowered.module
            calls.append(LayerCall(function, bottoms, tops, detached, freed))
        return calls[::-1]


def _detached_bottoms(layer: Layer) -> tuple[int, ...]:
    """Return the positions of the bottoms with `propagate_down: false`, which receive no gradient.

    Source: src/caffe/net.cpp Net::AppendBottom, Net::Init. A net with force_backward ignores propagate_down.
    """
    return tuple(position for position, down in enumerate(layer.params.propagate_down) if not down)


def _share_blob(owner: LoweredLayer, owner_role: str, lowered: LoweredLayer, role: str) -> None:
    """Make one blob of a layer share the tensor of another layer's blob, whatever layout the two modules use."""
    if role in lowered.parameter_locations and owner_role in owner.parameter_locations:
        _share_parameter(owner, owner.parameter_locations[owner_role], lowered, role)
    elif (
        _statistic_names(owner) == _statistic_names(lowered)
        and all(_statistic_names(lowered))
        and owner.layer_type is lowered.layer_type
    ):
        for owner_module, module in zip(owner.module.modules(), lowered.module.modules(), strict=True):
            module._buffers.update(owner_module._buffers)
    else:
        layer = lowered.layer
        raise UnsupportedError(f"layer {layer.name!r} ({layer.type}): its {role} cannot be shared in PyTorch")


def _share_parameter(owner: LoweredLayer, shared: ParameterLocation, lowered: LoweredLayer, role: str) -> None:
    location = lowered.parameter_locations[role]
    if location.parameter.numel() != shared.parameter.numel():
        message = f"it shares its {role} with layer {owner.layer.name!r}, whose blob has another number of elements"
        raise lowered.layer.error(message)
    if (location.shape, location.strides) == (shared.shape, shared.strides):
        location.use_parameter(shared.parameter)
    else:
        location.compute_from(shared)
        del lowered.parameter_locations[role]


def _statistic_names(lowered: LoweredLayer) -> list[str]:
    """Return the `param` names of a layer's moving statistics, "" for each without a name; [""] if it has none."""
    names = [spec.name for spec in lowered.layer.params.param] + [""] * len(lowered.roles)
    return [name for role, name in zip(lowered.roles, names, strict=False) if lowered.specs[role].statistic] or [""]


def as_tensors(arrays: Mapping[str, Array]) -> dict[str, Tensor]:
    """Return float32 tensors that hold copies of the arrays."""
    return {name: torch.from_numpy(np.array(array, "float32")) for name, array in arrays.items()}
