"""What a file of weights holds, as plain frozen data; and NewLayer, for what is to be written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prototxt_gen.caffemodel.wire import LEN, VARINT, forget
from prototxt_gen.common.errors import WeightsError

Version = Literal["V0", "V1", "V2", "HDF5"]
Phase = Literal["TRAIN", "TEST"]
Bytes = bytes | memoryview

PHASE_FIELD = 10  # LayerParameter.phase
PHASES: tuple[Phase, Phase] = ("TRAIN", "TEST")


def shown(name: str) -> str:
    """Return `name` quoted for a sentence, shortened where a damaged file made it endless."""
    return repr(name if len(name) <= 80 else name[:77] + "...")


class Span(NamedTuple):
    """Numbers that lie in the file from byte `start` to `stop`, `stride` bytes from one to the next."""

    start: int
    stop: int
    stride: int

    def numbers(self, width: int) -> int:
        """Return how many numbers of `width` bytes lie here; the last has no gap behind it."""
        return (self.stop - self.start + self.stride - width) // self.stride


@dataclass(frozen=True, eq=False)
class Blob:
    """One learned array as it is stored; its numbers stay in the file until `array` is called.

    `legacy` says that the shape came from num, channels, height and width: it has 4 axes, and Caffe takes it for every
    shape that equals it but for ones in front (`Blob::ShapeEquals`, src/caffe/blob.cpp): 1x1x1xN fits N.
    """

    shape: tuple[int, ...]
    legacy: bool
    dtype: np.dtype[Any]
    source: memoryview = field(repr=False)
    spans: tuple[Span, ...] = field(repr=False)

    @property
    def count(self) -> int:
        """How many numbers the shape asks for, and the file holds."""
        return math.prod(self.shape)

    def stored(self) -> NDArray[Any]:
        """Return the numbers in the file's own type and the blob's shape: a read-only view if they lie together."""
        parts = [self._view(span) for span in self.spans]
        flat: NDArray[Any] = parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, self.dtype), *parts])
        shaped: NDArray[Any] = flat.reshape(self.shape)
        return shaped

    def array(self) -> NDArray[np.float32]:
        """Return the numbers as float32 in the blob's shape; double and half precision are converted.

        Stored as packed float32, as nearly all are, it is a read-only view of the file, and may begin at any byte: give
        `np.array(...)` of it to code that writes into it or needs alignment. NaN and infinities are carried, and a
        double beyond float32 becomes infinite, as in Caffe.
        """
        with np.errstate(all="ignore"):
            converted: NDArray[np.float32] = self.stored().astype(np.float32, copy=False)
        return converted

    def _view(self, span: Span) -> NDArray[Any]:
        count = span.numbers(self.dtype.itemsize)
        view: NDArray[Any] = np.ndarray((count,), self.dtype, self.source, span.start, (span.stride,))
        return view


class Further(NamedTuple):
    """A field of a layer that is neither name, type, bottom, top nor blob: data[at:stop] is all of it."""

    number: int
    kind: int
    start: int
    stop: int
    at: int


@dataclass(frozen=True, eq=False)
class StoredLayer:
    """One layer of a file of weights.

    `type` is Caffe's V2 name; V1's numbers are turned into it (one that BVLC does not know, as 42, stays "V1:42"), V0's
    strings ("conv") are kept, and HDF5 files have none (""). Names that are not UTF-8 keep their bytes as surrogates.
    `fields` are the field numbers that the layer's message carries (V0: the inner message's): they tell forks apart.
    `positions` are the blobs' places in the layer: 0, 1, 2 … except in HDF5, where Caffe leaves out shared ones.
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
    further: tuple[Further, ...] = field(default=(), repr=False)

    def messages(self, number: int) -> tuple[memoryview, ...]:
        """Return the bytes of every sub-message with this field number, uncopied: there may be many `param` (6)."""
        found = (part for part in self.further if part.number == number and part.kind == LEN)
        return tuple(self.source[part.start : part.stop] for part in found)

    def message(self, number: int) -> memoryview | None:
        """Return the bytes of the one sub-message with this number, or None; pieces are joined, as protobuf does."""
        parts = self.messages(number)
        if len(parts) > 1:
            return memoryview(b"".join(parts))
        return parts[0] if parts else None

    @property
    def phase(self) -> Phase | None:
        """The phase the layer was saved in (LayerParameter.phase), where the file says it."""
        if self.version != "V2":
            return None
        found = [part.start for part in self.further if part.number == PHASE_FIELD and part.kind == VARINT]
        return PHASES[found[-1]] if found and found[-1] < len(PHASES) else None

    def renewed(self, type: str | None = None) -> NewLayer:
        """Return this layer for writing. A V2 layer keeps every field; an older one name, type, ends and blobs.

        `type` replaces the type, and has to be given for V0 and HDF5 layers, which do not know their V2 name.
        """
        if type is None and self.version in ("V0", "HDF5"):
            raise WeightsError(f"layer {shown(self.name)}: a {self.version} file does not tell its type in V2")
        kept = self.further if self.version == "V2" else ()
        encoded = tuple((part.number, self.source[part.at : part.stop]) for part in kept)
        return NewLayer(
            self.name, self.type if type is None else type, self.blobs, self.bottoms, self.tops, encoded=encoded
        )


@dataclass(frozen=True, eq=False)
class CaffeModel:
    """The layers of one file, in its order; two may have one name, and Caffe copies from both in turn."""

    name: str
    layers: tuple[StoredLayer, ...]
    version: Version
    path: str

    def forget(self) -> None:
        """Let the system drop the pages that were read so far; views stay right, and read them again when used."""
        forget(self.layers[0].source)


@dataclass(frozen=True, eq=False)
class NewLayer:
    """One layer to write. Blobs are arrays, written as float32, or Blobs, copied as they are stored.

    `params` holds sub-messages by LayerParameter field number, already serialised: the numbers are the fork's.
    `encoded` holds further fields whole, tag included (`StoredLayer.renewed` fills it).
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
    """What Caffe's solver saves beside the weights (`SGDSolver::SnapshotSolverState`).

    `history`: one blob per learnable blob for SGD, Nesterov, AdaGrad and RMSProp, two for AdaDelta and Adam.
    """

    iter: int
    learned_net: str
    history: tuple[Blob, ...]
    current_step: int
    path: str
