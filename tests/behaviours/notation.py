"""A behaviour: one small net that shows one thing that Caffe does, in a short notation that expands to a prototxt.

Each line of `layers` is one layer, `name: Type bottoms > tops | other fields of the layer`:

    conv: Convolution data > conv | convolution_param { num_output: 4 kernel_size: 3 }

Lines in any other form are kept unchanged. Inputs are declared in one of the three forms that Caffe has.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from prototxt_gen.ir import Shape
from prototxt_gen.layers.example import Draw

_SHORT = re.compile(
    r"^(?P<name>[^\s:]+): (?P<type>\w+)(?P<bottoms>(?: [^\s>|]+)*) >(?P<tops>(?: [^\s|]+)*)(?: \|(?: (?P<rest>.*))?)?$"
)
_SHAPED = re.compile(r"(?P<name>.+?)(?P<dims>( \d+)*)$")
_FORMS = ("input_shape", "Input", "input_dim")


@dataclass(frozen=True)
class Behaviour:
    """One net. `inputs` is written as `data 1 3 8 8; label 1`; `text` is a whole prototxt instead of the notation.

    `draws` fills the inputs; `fills` fills the learned blobs, one function for each blob of a layer; `storage` is the
    form of the weights file. `tolerance` is relative to the largest value of a blob. `refused` means that Caffe refuses
    the net, and so must this project.
    """

    name: str
    inputs: str = ""
    layers: str = ""
    text: str = ""
    draws: Mapping[str, Draw] = field(default_factory=dict)
    fills: Mapping[str, tuple[Draw, ...]] = field(default_factory=dict)
    storage: str = "caffemodel"
    stages: tuple[str, ...] = ()
    level: int = 0
    refused: bool = False
    tolerance: float = 1e-5
    onnx: bool = True
    caffe_layers: str = ""
    """Layers that Caffe runs instead of `layers`, if it lacks their types."""
    statistic: str | None = None
    dialect: str | None = None
    refused_here: str = ""
    """Reason for which this project refuses a net that Caffe runs; empty if it runs it."""

    @property
    def shapes(self) -> dict[str, Shape]:
        """Shapes of the inputs, by blob."""
        parts = (_SHAPED.match(part.strip()) for part in self.inputs.split(";"))
        return {part["name"]: tuple(map(int, part["dims"].split())) for part in parts if part}

    @property
    def seed(self) -> int:
        return zlib.crc32(self.name.encode())

    def prototxt(self) -> str:
        """Return the whole net as a user would write it."""
        if self.text:
            return self.text
        return self._whole(self.layers)

    def caffe_prototxt(self) -> str:
        """Return the net that Caffe runs."""
        return self._whole(self.caffe_layers) if self.caffe_layers else self.prototxt()

    def _whole(self, layers: str) -> str:
        lines = [line.strip() for line in layers.strip().splitlines()]
        return "\n".join([f'name: "{self.name}"', *self._declared(), *map(_unfolded, lines), ""])

    def _declared(self) -> list[str]:
        form = _FORMS[self.seed % len(_FORMS)]
        if form == "input_dim" and any(len(shape) != 4 for shape in self.shapes.values()):
            form = "input_shape"
        return [_declaration(form, name, shape) for name, shape in self.shapes.items()]


def _declaration(form: str, name: str, shape: Shape) -> str:
    dims = " ".join(f"dim: {dim}" for dim in shape)
    if form == "Input":
        return f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ {dims} }} }} }}'
    if form == "input_dim":
        return f'input: "{name}" ' + " ".join(f"input_dim: {dim}" for dim in shape)
    return f'input: "{name}" input_shape {{ {dims} }}'


def _unfolded(line: str) -> str:
    match = _SHORT.match(line)
    if match is None:
        return line
    fields = [f'{field}: "{blob}"' for field in ("bottom", "top") for blob in match[f"{field}s"].split()]
    return f'layer {{ name: "{match["name"]}" type: "{match["type"]}" {" ".join(fields)} {match["rest"] or ""} }}'


B = Behaviour
"""Short name for the tables."""
