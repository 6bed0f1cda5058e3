"""Immutable data classes for the contents of weights files; NewLayer for layers to write."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prototxt_gen.caffemodel.wire import LEN, VARINT, release_pages
from prototxt_gen.common.errors import WeightsError

Version = Literal["V0", "V1", "V2", "HDF5"]
Phase = Literal["TRAIN", "TEST"]
Bytes = bytes | memoryview

PHASE_FIELD = 10  # LayerParameter.phase
PHASES: tuple[Phase, Phase] = ("TRAIN", "TEST")


def quoted_name(name: str) -> str:
    """Return `name` in quotes, for error messages; names longer than 80 characters are shortened."""
    return repr(name if len(name) <= 80 else name[:77] + "...")


class Span(NamedTuple):
    """Values in the file from byte `start` to `stop`; one begins `stride` bytes after the other."""

    start: int
    stop: int
    stride: int

    def numbers(self, width: int) -> int:
        """Return the number of values of `width` bytes each; there is no gap behind the last."""
        return (self.stop - self.start + self.stride - width) // self.stride


@dataclass(frozen=True, eq=False)
class Blob:
    """One learned array in a file; its values are read when `array` or `stored` is called.

    `legacy` means that the shape is stored as num, channels, height and width. It has 4 axes, and Caffe accepts it for
    a shape that differs only by leading ones: 1x1x1xN for N (`Blob::ShapeEquals`, src/caffe/blob.cpp).
    """

    shape: tuple[int, ...]
    legacy: bool
    dtype: np.dtype[Any]
    source: memoryview = field(repr=False)
    spans: tuple[Span, ...] = field(repr=False)

    @property
    def count(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    def stored(self) -> NDArray[Any]:
        """Return the values in the type that they have in the file; a read-only view if they are contiguous."""
        parts = [self._view(span) for span in self.spans]
        flat: NDArray[Any] = parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, self.dtype), *parts])
        shaped: NDArray[Any] = flat.reshape(self.shape)
        return shaped

    def array(self) -> NDArray[np.float32]:
        """Return the values as float32; double and half precision are converted.

        For packed float32, the usual case, this is a read-only view of the file that may begin at any byte; use
        `np.array(...)` for code that writes to it or needs alignment. NaN and infinities are kept, and a double beyond
        the range of float32 becomes infinite, as in Caffe.
        """
        with np.errstate(all="ignore"):
            converted: NDArray[np.float32] = self.stored().astype(np.float32, copy=False)
        return converted

    def _view(self, span: Span) -> NDArray[Any]:
        count = span.numbers(self.dtype.itemsize)
        view: NDArray[Any] = np.ndarray((count,), self.dtype, self.source, span.start, (span.stride,))
        return view


class OtherField(NamedTuple):
    """A field of a stored layer other than name, type, bottom, top and blobs; data[at:stop] is the whole field."""

    number: int
    kind: int
    start: int
    stop: int
    at: int


@dataclass(frozen=True, eq=False)
class StoredLayer:
    """One layer of a weights file.

    `type` is the V2 name: V1's numbers are converted ("V1:42" for a number that BVLC does not have), V0's strings
    ("conv") are kept, and HDF5 files have none (""). Bytes of names that are not UTF-8 are kept as surrogates. `fields`
    are the field numbers in the layer's message (V0: in the inner message), from which a fork can be detected.
    `positions` are the indices of the blobs in the layer: 0, 1, 2 …, but in HDF5 shared blobs are missing.
    """

    name: str
    type: str
    blobs: tuple[Blob, ...]
    bottoms: tuple[str, ...] = ()
    tops: tuple[str, ...] = ()
    fields: frozenset[int] = frozenset()
    index: int = 0
    version: Version = "V2"
    positions: tuple[int, ...] = ()
    source: memoryview = field(default=memoryview(b""), repr=False)
    other_fields: tuple[OtherField, ...] = field(default=(), repr=False)

    def messages(self, number: int) -> tuple[memoryview, ...]:
        """Return the bytes of all inner messages with this field number (`param`, 6, is repeated), without a copy."""
        found = (part for part in self.other_fields if part.number == number and part.kind == LEN)
        return tuple(self.source[part.start : part.stop] for part in found)

    def message(self, number: int) -> memoryview | None:
        """Return the bytes of the inner message with this field number, or None; parts are joined, as in protobuf."""
        parts = self.messages(number)
        if len(parts) > 1:
            return memoryview(b"".join(parts))
        return parts[0] if parts else None

    @property
    def phase(self) -> Phase | None:
        """The phase in which the layer was saved (LayerParameter.phase), or None."""
        if self.version != "V2":
            return None
        found = [part.start for part in self.other_fields if part.number == PHASE_FIELD and part.kind == VARINT]
        return PHASES[found[-1]] if found and found[-1] < len(PHASES) else None

    def to_new_layer(self, type: str | None = None) -> NewLayer:
        """Return this layer as a NewLayer. V2 layers keep all fields, others only name, type, bottoms, tops and blobs.

        `type` replaces the type; it is required for V0 and HDF5 layers, which have no V2 type. Raises WeightsError.
        """
        if type is None and self.version in ("V0", "HDF5"):
            raise WeightsError(f"layer {quoted_name(self.name)}: a {self.version} file does not have its V2 type")
        kept = self.other_fields if self.version == "V2" else ()
        encoded = tuple((part.number, self.source[part.at : part.stop]) for part in kept)
        return NewLayer(
            self.name, self.type if type is None else type, self.blobs, self.bottoms, self.tops, encoded=encoded
        )


@dataclass(frozen=True, eq=False)
class CaffeModel:
    """The layers of a weights file, in order. If two have the same name, Caffe copies both, one after another."""

    name: str
    layers: tuple[StoredLayer, ...]
    version: Version
    path: str

    def release_pages(self) -> None:
        """Release the memory pages read so far; views stay valid and read them from the file again."""
        release_pages(self.layers[0].source)


@dataclass(frozen=True, eq=False)
class NewLayer:
    """One layer to write. `blobs` are arrays, which are written as float32, or Blobs, which are copied unchanged.

    `params` are serialised inner messages by their LayerParameter field number, which depends on the fork.
    `encoded` holds other_fields fields whole, tag included (`StoredLayer.to_new_layer` sets it).
    """

    name: str
    type: str
    blobs: Sequence[NDArray[Any] | Blob] = ()
    bottoms: Sequence[str] = ()
    tops: Sequence[str] = ()
    phase: Phase | None = None
    params: Mapping[int, Bytes] = field(default_factory=dict)
    encoded: Sequence[tuple[int, Bytes]] = ()


@dataclass(frozen=True, eq=False)
class SolverState:
    """A solver state, which Caffe saves beside the weights (`SGDSolver::SnapshotSolverState`).

    `history` has one blob per learned blob for SGD, Nesterov, AdaGrad and RMSProp, two for AdaDelta and Adam.
    """

    iter: int
    learned_net: str
    history: tuple[Blob, ...]
    current_step: int
    path: str
