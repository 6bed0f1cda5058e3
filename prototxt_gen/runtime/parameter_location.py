"""ParameterLocation: which PyTorch parameter holds a learned blob, and in which memory layout.

Importing this module imports torch, so import it inside the function that needs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prototxt_gen.layers.base import BlobSpec, LayerType
from prototxt_gen.weights import Array


@dataclass(frozen=True)
class ParameterLocation:
    """Where a learned blob is stored: a parameter of a module, with the blob's shape and strides in its memory."""

    module: nn.Module
    parameter_name: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def parameter(self) -> nn.Parameter:
        """The parameter. Layers that share a blob return the same object."""
        parameter = self.module._parameters[self.parameter_name]
        assert parameter is not None
        return parameter

    def use_parameter(self, parameter: nn.Parameter) -> None:
        """Replace the module's parameter by this one, so that two modules share it."""
        self.module._parameters[self.parameter_name] = parameter

    def compute_from(self, other: ParameterLocation) -> None:
        """Replace the parameter by a property that rearranges another location's parameter at every access.

        Needed where two layers share a blob but keep its elements in different orders.
        """
        module_class, parameter_shape = type(self.module), tuple(self.parameter.shape)
        order = sorted(range(len(self.shape)), key=lambda axis: -self.strides[axis])

        def rearranged(_: nn.Module) -> Tensor:
            blob = other._blob_view(other.parameter)
            return blob.reshape(self.shape).permute(order).reshape(parameter_shape)

        del self.module._parameters[self.parameter_name]
        attributes = {self.parameter_name: property(rearranged)}
        self.module.__class__ = type(module_class.__name__, (module_class,), attributes)

    def to_blob(self, tensor: Tensor) -> Array:
        """Return a tensor that has the parameter's layout as a float32 array in the blob's layout."""
        return self._blob_view(tensor.detach().cpu().float().contiguous()).numpy()

    def write_blob(self, tensor: Tensor, blob: Array) -> None:
        """Copy a blob with as many elements into a tensor that has the parameter's layout."""
        contiguous = torch.empty(tensor.shape)
        self._blob_view(contiguous).copy_(torch.from_numpy(blob.reshape(self.shape).astype("float32", copy=True)))
        with torch.no_grad():
            tensor.copy_(contiguous)

    def _blob_view(self, contiguous: Tensor) -> Tensor:
        return torch.as_strided(contiguous, self.shape, self.strides)


def find_parameters(
    layer_type: LayerType, module: nn.Module, specs: Mapping[str, BlobSpec]
) -> dict[str, ParameterLocation]:
    """Return the parameter of every learned blob by role.

    A blob belongs to the parameter whose memory the array returned by the layer type's `dump` points to.
    """
    if not specs:
        return {}
    owners = {p.data_ptr(): (m, name) for m in module.modules() for name, p in m._parameters.items() if p is not None}
    locations = {}
    for role, array in layer_type.dump(module, list(specs)).items():
        owner = owners.get(array.ctypes.data)
        if owner is not None and not specs[role].statistic:
            strides = tuple(stride // array.itemsize for stride in array.strides)
            locations[role] = ParameterLocation(*owner, array.shape, strides)
    return locations
