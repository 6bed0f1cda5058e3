"""Parser of .caffemodel, .solverstate and .binaryproto files, with the field numbers of BVLC's caffe.proto.

Values are not read or copied. **Source** src/caffe/proto/caffe.proto (NetParameter, LayerParameter,
V1LayerParameter, V0LayerParameter, BlobProto, SolverState), `Blob::FromProto` (src/caffe/blob.cpp),
`UpgradeV1LayerType`, `UpgradeV1Net` (src/caffe/util/upgrade_proto.cpp); half precision: NVIDIA's caffe.proto.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from prototxt_gen.caffemodel.types import Blob, CaffeModel, OtherField, SolverState, Span, StoredLayer, quoted_name
from prototxt_gen.caffemodel.wire import FIXED32, FIXED64, LEN, VARINT, Field, Wire, WireError, expect, signed
from prototxt_gen.common.errors import WeightsError

MAX_AXES = 32  # kMaxBlobAxes
MAX_DIM = 2**31 - 1  # Caffe's dims are int
LAYER_COST, BLOB_COST, SPAN_COST = 16, 8, 4  # cost of each in fields, against files of a million empty layers

# fmt: off
V1_TYPES = (
    "", "Accuracy", "BNLL", "Concat", "Convolution", "Data", "Dropout", "EuclideanLoss", "Flatten", "HDF5Data",
    "HDF5Output", "Im2col", "ImageData", "InfogainLoss", "InnerProduct", "LRN", "MultinomialLogisticLoss", "Pooling",
    "ReLU", "Sigmoid", "Softmax", "SoftmaxWithLoss", "Split", "TanH", "WindowData", "Eltwise", "Power",
    "SigmoidCrossEntropyLoss", "HingeLoss", "MemoryData", "ArgMax", "Threshold", "DummyData", "Slice", "MVN", "AbsVal",
    "Silence", "ContrastiveLoss", "Exp", "Deconvolution",
)  # by V1LayerParameter.LayerType
# fmt: on

FLOAT, DOUBLE, HALF = np.dtype("<f4"), np.dtype("<f8"), np.dtype("<f2")
RAW_TYPES: dict[int | None, np.dtype[Any]] = {0: DOUBLE, 1: FLOAT, 2: HALF}  # NVIDIA's enum Type has integers too


@dataclass(frozen=True)
class FieldNumbers:
    """The field numbers of a layer message in one version of the schema (V0, V1, V2); -1 if it has no such field."""

    name: int
    type: int
    bottom: int
    top: int
    blobs: int
    inner: int = -1

    def roles(self) -> dict[int, int]:
        """Return V2's number of the same field for each field number; 0 for the inner layer of V0."""
        roles = {self.name: 1, self.type: 2, self.bottom: 3, self.top: 4, self.blobs: 7, self.inner: 0}
        return {number: role for number, role in roles.items() if number > 0}


V2_NUMBERS = FieldNumbers(name=1, type=2, bottom=3, top=4, blobs=7)
V1_NUMBERS = FieldNumbers(name=4, type=5, bottom=2, top=3, blobs=6, inner=1)
V0_NUMBERS = FieldNumbers(name=1, type=2, bottom=-1, top=-1, blobs=50)
ROLES = {numbers: numbers.roles() for numbers in (V2_NUMBERS, V1_NUMBERS, V0_NUMBERS)}
ROLE_NAMES = {0: "layer", 1: "name", 2: "type", 3: "bottom", 4: "top", 7: "blobs"}


def text(data: memoryview) -> str:
    """Return a name as str; bytes that are not UTF-8 become surrogates, which can be encoded again."""
    return str(data, "utf-8", "surrogateescape")


class BlobReader:
    """Collects the fields of one BlobProto."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.dims: list[int] = []
        self.legacy: dict[int, int] = {}
        self.floats: list[Span] = []
        self.doubles: list[Span] = []
        self.raw: list[Span] = []
        self.raw_type: int | None = None

    def read(self, start: int, stop: int) -> Blob:
        """Return the BlobProto at data[start:stop]. Raises WireError unless shape and data agree."""
        self.wire.spend(BLOB_COST)
        for each in self.wire.fields(start, stop):
            self._add_field(each)
        dtype, spans = self._value_spans()
        shape = tuple(self.legacy.get(number, 0) for number in (1, 2, 3, 4)) if self.legacy else tuple(self.dims)
        check_shape(shape, sum(span.numbers(dtype.itemsize) for span in spans))
        return Blob(shape, bool(self.legacy), dtype, self.wire.data, tuple(spans))

    def _add_field(self, each: Field) -> None:
        number, kind, start, stop, _ = each
        if number == 5:
            self.wire.spend(SPAN_COST)
            self.floats.append(span_of(each, FIXED32, 4, "data"))
        elif number == 7:
            expect(each, LEN, "shape")
            self._add_dims(start, stop)
        elif number in (1, 2, 3, 4):
            expect(each, VARINT, ("num", "channels", "height", "width")[number - 1])
            self.legacy[number] = signed(start, 32)
        elif number == 8:
            self.wire.spend(SPAN_COST)
            self.doubles.append(span_of(each, FIXED64, 8, "double_data"))
        elif number == 10 and kind == VARINT:
            self.raw_type = start
        elif number == 12 and kind == LEN:
            self.raw = [Span(start, stop, 1)]

    def _add_dims(self, start: int, stop: int) -> None:
        for number, kind, value, end, _ in self.wire.fields(start, stop):
            if number == 1 and kind in (VARINT, LEN):
                for dim in self.wire.varints(value, end) if kind == LEN else (value,):
                    self.dims.append(signed(dim))
                    if len(self.dims) > MAX_AXES:
                        raise WireError(f"a shape of more than {MAX_AXES} axes")

    def _value_spans(self) -> tuple[np.dtype[Any], list[Span]]:
        """Return type and spans of the values: doubles if any, as in Caffe, else floats, else NVIDIA's raw bytes."""
        if any(span.stop > span.start for span in self.doubles):
            return DOUBLE, self.doubles
        if any(span.stop > span.start for span in self.floats) or not self.raw:
            return FLOAT, self.floats
        dtype, raw = RAW_TYPES.get(self.raw_type), self.raw[0]
        if dtype is None:
            raise WireError(f"raw_data of raw_data_type {self.raw_type}; known are 0 (double), 1 (float), 2 (float16)")
        check_whole(raw.stop - raw.start, dtype.itemsize, "raw_data")
        return dtype, [Span(raw.start, raw.stop, dtype.itemsize)]


def span_of(each: Field, unpacked: int, width: int, name: str) -> Span:
    """Return the span of the values of a packed field, or of a run of unpacked fields."""
    _, kind, start, stop, _ = each
    if kind == unpacked:
        return Span(start, stop, width + 1)
    expect(each, LEN, name)
    check_whole(stop - start, width, name)
    return Span(start, stop, width)


def check_whole(size: int, width: int, name: str) -> None:
    """Raise WireError unless `size` bytes is a multiple of `width` bytes."""
    if size % width:
        raise WireError(f"{name} of {size:,} bytes is no whole count of {width}-byte numbers")


def check_shape(shape: tuple[int, ...], held: int) -> None:
    """Raise WireError unless `shape` is possible in Caffe and has `held` values."""
    said = "x".join(map(str, shape)) or "a single number"
    if any(not 0 <= dim <= MAX_DIM for dim in shape) or math.prod(dim or 1 for dim in shape) >= 2**48:
        raise WireError(f"no blob has the shape {said}")
    if math.prod(shape) != held:
        raise WireError(f"shape {said} asks for {math.prod(shape):,} values, {held:,} are stored")


class LayerReader:
    """Collects the fields of one layer of any version."""

    def __init__(self, wire: Wire, index: int) -> None:
        self.wire, self.index = wire, index
        self.name = self.type = ""
        self.ends: dict[int, list[str]] = {3: [], 4: []}
        self.blobs: list[tuple[int, int]] = []
        self.other_fields: list[OtherField] = []
        self.seen: set[int] = set()
        self.inner: list[tuple[int, int]] = []

    def take(self, start: int, stop: int, numbers: FieldNumbers) -> None:
        """Collect the layer's message at data[start:stop]."""
        roles = ROLES[numbers]
        for each in self.wire.fields(start, stop):
            number, kind, value, end, at = each
            self.seen.add(number)
            role = roles.get(number)
            if role is None:
                self.other_fields.append(OtherField(number, kind, value, end, at))
            elif role == 2 and numbers is V1_NUMBERS:
                expect(each, VARINT, "type")
                self.type = V1_TYPES[value] if value < len(V1_TYPES) else f"V1:{value}"
            else:
                expect(each, LEN, ROLE_NAMES[role])
                self._take_bytes(role, value, end)

    def _take_bytes(self, role: int, start: int, stop: int) -> None:
        if role in (0, 7):
            (self.blobs if role else self.inner).append((start, stop))
            return
        value = text(self.wire.data[start:stop])
        if role == 1:
            self.name = value
        elif role == 2:
            self.type = value
        else:
            self.ends[role].append(value)

    def take_inner(self) -> None:
        """Replace all fields except bottoms and tops by those of the inner V0 layer, as Caffe does."""
        self.name = self.type = ""
        self.blobs, self.other_fields, self.seen = [], [], set()
        for start, stop in self.inner:
            self.take(start, stop, V0_NUMBERS)

    def read(self, start: int, stop: int, numbers: FieldNumbers) -> StoredLayer:
        """Return the layer at data[start:stop]. Raises WireError, which names the blob."""
        self.wire.spend(LAYER_COST)
        self.take(start, stop, numbers)
        if self.inner:
            self.take_inner()
        blobs = tuple(read_blobs(self.wire, self.blobs, "blob"))
        return StoredLayer(
            name=self.name,
            type=self.type,
            blobs=blobs,
            bottoms=tuple(self.ends[3]),
            tops=tuple(self.ends[4]),
            fields=frozenset(self.seen),
            index=self.index,
            version="V0" if self.inner else "V2" if numbers is V2_NUMBERS else "V1",
            positions=tuple(range(len(blobs))),
            source=self.wire.data,
            other_fields=tuple(self.other_fields),
        )

    def __str__(self) -> str:
        if not self.name:
            return f"layer number {self.index + 1}"
        return f"layer {quoted_name(self.name)} ({quoted_name(self.type)[1:-1] or 'type unknown'})"


def read_blobs(wire: Wire, places: list[tuple[int, int]], what: str) -> Iterator[Blob]:
    """Yield the BlobProtos at these byte ranges. Raises WireError, which names the blob by `what` and its index."""
    for index, (start, stop) in enumerate(places):
        try:
            yield BlobReader(wire).read(start, stop)
        except WireError as error:
            raise WireError(f"{what} {index}: {error}") from error


def parse_net(data: memoryview, path: str) -> CaffeModel:
    """Return the NetParameter in `data`. Raises WeightsError, which names the file and, if possible, the layer."""
    wire, name, layers = Wire(data), "", list[StoredLayer]()
    try:
        for each in wire.fields(0, len(data)):
            number, _, start, stop, _ = each
            if number == 1:
                expect(each, LEN, "name")
                name = text(data[start:stop])
            elif number in (2, 100):
                expect(each, LEN, "layers" if number == 2 else "layer")
                layers.append(parse_layer(wire, start, stop, number, len(layers)))
    except WireError as error:
        raise WeightsError(f"{path}: {error}") from error
    versions = {layer.version for layer in layers}
    if not layers:
        raise WeightsError(f"{path}: holds no layers")
    if "V2" in versions and len(versions) > 1:
        raise WeightsError(f"{path}: mixes V2 layers ('layer') with older ones ('layers'), which Caffe refuses")
    return CaffeModel(name, tuple(layers), min(versions), path)


def parse_layer(wire: Wire, start: int, stop: int, number: int, index: int) -> StoredLayer:
    """Return the layer in field `number` of NetParameter: 100 holds V2 layers, 2 the older ones."""
    reader = LayerReader(wire, index)
    try:
        return reader.read(start, stop, V2_NUMBERS if number == 100 else V1_NUMBERS)
    except WireError as error:
        raise WireError(f"{reader}: {error}") from error


def parse_state(data: memoryview, path: str) -> SolverState:
    """Return the SolverState in `data`."""
    wire, numbers, net, places, seen = Wire(data), {1: 0, 4: 0}, "", list[tuple[int, int]](), set[int]()
    try:
        for each in wire.fields(0, len(data)):
            number, _, start, stop, _ = each
            seen.add(number)
            if number in numbers:
                expect(each, VARINT, "iter" if number == 1 else "current_step")
                numbers[number] = signed(start, 32)
            elif number in (2, 3):
                expect(each, LEN, "learned_net" if number == 2 else "history")
                net = text(data[start:stop]) if number == 2 else net
                places.extend([(start, stop)] if number == 3 else [])
        history = tuple(read_blobs(wire, places, "history blob"))
    except WireError as error:
        raise WeightsError(f"{path}: {error}") from error
    if not seen & {1, 3}:
        raise WeightsError(f"{path}: holds neither iter nor history, so it is no .solverstate")
    return SolverState(numbers[1], net, history, numbers[4], path)


def parse_blob(data: memoryview, path: str) -> Blob:
    """Return the BlobProto in `data`: a mean file, as compute_image_mean writes it."""
    try:
        return BlobReader(Wire(data)).read(0, len(data))
    except WireError as error:
        raise WeightsError(f"{path}: {error}") from error
