"""A behaviour: one small net that tells one thing Caffe does, written in a short notation that unfolds to a prototxt.

Each line of `layers` is one layer, `name: Type bottoms > tops | the rest of its prototxt`:

    conv: Convolution data > conv | convolution_param { num_output: 4 kernel_size: 3 }

Lines that start with a lower-case word and a brace, or are set in another form, are kept as they are. Inputs are
declared by turns in each of the three forms that Caffe has.
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
    """One net. `inputs` reads `data 1 3 8 8; label 1`; `text` replaces everything where the notation will not do.

    `draws` fills inputs, `fills` learned blobs by layer (one for each); `storage` names how the weights are stored.
    `tolerance` is relative to a blob's largest value. `refused`: Caffe does not run it, nor may we.
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
    stock: str = ""
    """The layers that Caffe runs in place of `layers`, of types that it has."""
    statistic: str | None = None
    dialect: str | None = None
    not_here: str = ""
    """Why we refuse what Caffe runs; empty where we run it."""

    @property
    def shapes(self) -> dict[str, Shape]:
        """The inputs' shapes, by blob."""
        found = (_SHAPED.match(one.strip()) for one in self.inputs.split(";"))
        return {one["name"]: tuple(map(int, one["dims"].split())) for one in found if one}

    @property
    def seed(self) -> int:
        return zlib.crc32(self.name.encode())

    def prototxt(self) -> str:
        """Return the whole net as a user would write it."""
        if self.text:
            return self.text
        return self._whole(self.layers)

    def stock_prototxt(self) -> str:
        """Return the net that Caffe runs."""
        return self._whole(self.stock) if self.stock else self.prototxt()

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
    found = _SHORT.match(line)
    if found is None:
        return line
    ends = [f'{end}: "{blob}"' for end in ("bottom", "top") for blob in found[f"{end}s"].split()]
    return f'layer {{ name: "{found["name"]}" type: "{found["type"]}" {" ".join(ends)} {found["rest"] or ""} }}'


B = Behaviour
"""What the tables call it."""
