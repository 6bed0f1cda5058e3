"""Weights and solver states in HDF5, in the layout of BVLC Caffe: /data/<layer>/<index> and /iter, /history/<index> ….

**Source** `Net::ToHDF5` and `CopyTrainedLayersFromHDF5` (src/caffe/net.cpp), `SnapshotSolverStateToHDF5`
(src/caffe/solvers/sgd_solver.cpp), src/caffe/util/hdf5.cpp. The layout keeps neither the types nor the order of layers:
they come in the order of their names.
h5py finds the arrays; those that lie in one piece, as Caffe writes them, are then viewed in the mapped file, uncopied.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from prototxt_gen.caffemodel.reading import MOST_AXES, check_shape
from prototxt_gen.caffemodel.types import Blob, CaffeModel, NewLayer, SolverState, Span, StoredLayer, shown
from prototxt_gen.caffemodel.wire import WireError
from prototxt_gen.common.errors import PrototxtGenError, RuntimeMissingError, WeightsError
from prototxt_gen.common.files import replacing

if TYPE_CHECKING:
    import h5py

MOST_OBJECTS, MOST_DEEP, MOST_NAME = 100_000, 32, 65_536  # hard links may form rings
UNFIT = "Caffe finds no such name in HDF5 (one with a slash, a second one, none at all): write a .caffemodel"
BOMB, MOST_SHRUNK = 1 << 24, 100  # bytes; no weights shrink a hundredfold, only a claim does


@dataclass(frozen=True, eq=False)
class ChunkedBlob(Blob):
    """A blob that HDF5 stores in chunks, compressed perhaps: it is read, and copied, when it is asked for."""

    path: str = field(default="", repr=False)
    dataset: str = field(default="", repr=False)

    def stored(self) -> NDArray[Any]:
        """Return the numbers in the file's own type."""
        with opened(self.path) as file:
            return np.asarray(file[self.dataset][()]).reshape(self.shape)


def library() -> Any:
    """Return h5py, or raise RuntimeMissingError."""
    try:
        import h5py
    except ImportError as error:
        raise RuntimeMissingError("HDF5 weights need h5py: pip install h5py") from error
    return h5py


@contextmanager
def opened(path: str) -> Iterator[h5py.File]:
    """Open `path` for reading; whatever the library makes of a damaged file becomes a WeightsError."""
    h5 = library()
    try:
        with h5.File(path, "r", locking=False) as file:
            yield file
    except PrototxtGenError:
        raise
    except Exception as error:  # h5py raises nearly every built-in kind on damaged files
        raise WeightsError(f"{path}: damaged HDF5: {' '.join(str(error).split())[:200]}") from error


def read_net(path: str, data: memoryview) -> CaffeModel:
    """Return the layers of the HDF5 weights at `path`, whose bytes are `data`."""
    with opened(path) as file:
        root = _group(file, "data", path, "an HDF5 file of weights")
        found: dict[str, dict[int, Blob]] = {}
        for layer, place, blob in _walk(root, path, data):
            blobs = found.setdefault(layer, {})
            if blob is not None:
                blobs[place] = blob
    if not found:
        raise WeightsError(f"{path}: holds no layers")
    layers = tuple(_layer(name, blobs, index, data) for index, (name, blobs) in enumerate(found.items()))
    return CaffeModel("", layers, "HDF5", path)


def _layer(name: str, blobs: dict[int, Blob], index: int, data: memoryview) -> StoredLayer:
    places = tuple(sorted(blobs))
    stored = tuple(blobs[place] for place in places)
    return StoredLayer(name, "", stored, index=index, version="HDF5", positions=places, source=data)


def _group(file: h5py.File, name: str, path: str, what: str) -> h5py.Group:
    found = file.get(name)
    if not isinstance(found, library().Group):
        raise WeightsError(f"{path}: has no group /{name}, so it is not {what} from Caffe")
    return found


def _walk(root: h5py.Group, path: str, data: memoryview) -> Iterator[tuple[str, int, Blob | None]]:
    """Yield (layer, place, blob) for every array below `root`, and (layer, 0, None) for a layer without any."""
    pending, seen = [("", root)], 0
    while pending:
        prefix, group = pending.pop()
        names = list(group)
        seen += 1 + len(names)
        if seen > MOST_OBJECTS or prefix.count("/") > MOST_DEEP:
            raise WeightsError(f"{path}: more groups, or groups deeper, than any net has")
        members = {name: _child(group, name, path) for name in names}
        groups = {name: each for name, each in members.items() if isinstance(each, library().Group)}
        arrays = {name: each for name, each in members.items() if isinstance(each, library().Dataset)}
        pending.extend((f"{prefix}/{name}".lstrip("/"), groups[name]) for name in reversed(groups))
        if prefix and not (groups or arrays):
            yield prefix, 0, None
        for name, each in arrays.items():
            where = f"{path}: layer {shown(prefix)}: blob {name}"
            yield prefix, _place(name, prefix, path), _blob(each, where, data)


def _child(group: h5py.Group, name: str, path: str) -> Any:
    """Return a member of `group`; links that lead elsewhere, other files included, are refused."""
    if not isinstance(group.get(name, getlink=True), library().HardLink):
        raise WeightsError(f"{path}: {shown(name)} is a link to somewhere else, which Caffe never writes")
    return group[name]


def _place(name: str, layer: str, path: str) -> int:
    if not (layer and name.isascii() and name.isdigit() and len(name) < 6):
        raise WeightsError(f"{path}: layer {shown(layer)}: array {shown(name)} is not named by a number, as blobs are")
    return int(name)


def _blob(dataset: h5py.Dataset, where: str, data: memoryview) -> Blob:
    """Return the array as a Blob: a view of the mapped file if it lies there in one piece."""
    shape, dtype, size = dataset.shape, dataset.dtype, dataset.id.get_storage_size()
    if shape is None or dtype.kind not in "fiu" or dataset.is_virtual or dataset.external:
        raise WeightsError(f"{where}: is no array of numbers that the file itself holds")
    wanted = math.prod(shape) * dtype.itemsize
    try:
        check_shape(shape, math.prod(shape))
        if len(shape) > MOST_AXES or (size < wanted and (not size or (wanted > BOMB and wanted > MOST_SHRUNK * size))):
            raise WireError(f"claims {wanted:,} bytes, {size:,} are stored")
    except WireError as error:
        raise WeightsError(f"{where}: {error}") from error
    start = dataset.id.get_offset()
    if dataset.chunks is None and start is not None and size == wanted and start + size <= len(data):
        return Blob(shape, False, dtype, data, (Span(start, start + size, dtype.itemsize),))
    if dataset.chunks is None and wanted:
        raise WeightsError(f"{where}: lies beyond the end of the file")
    return ChunkedBlob(shape, False, dtype, data, (), dataset.file.filename, dataset.name)


def read_state(path: str, data: memoryview) -> SolverState:
    """Return the solver state in the HDF5 file at `path`, whose bytes are `data`."""
    with opened(path) as file:
        history = _group(file, "history", path, "a solver state")
        found = {
            _place(name, "history", path): _blob(_child(history, name, path), f"{path}: history blob {name}", data)
            for name in history
        }
        net = _name(file, "learned_net") if "learned_net" in file else ""
        step = _integer(file, "current_step") if "current_step" in file else 0
        iter_ = _integer(file, "iter")
    if sorted(found) != list(range(len(found))):
        raise WeightsError(f"{path}: its history blobs are not numbered from 0 without a gap")
    return SolverState(iter_, net, tuple(found[place] for place in range(len(found))), step, path)


def _name(file: h5py.File, name: str) -> str:
    value = file[name]
    if value.size != 1 or value.dtype.kind not in "SO" or value.dtype.itemsize > MOST_NAME:
        raise WeightsError(f"{file.filename}: /{name} is not one name")
    return bytes(value[()]).split(b"\0")[0].decode("utf-8", "surrogateescape")


def _integer(file: h5py.File, name: str) -> int:
    value = file[name]
    if value.size != 1 or value.dtype.kind not in "iu":
        raise WeightsError(f"{file.filename}: /{name} is not one integer")
    return int(np.ravel(value[()])[0])


def write_net(path: str | os.PathLike[str], layers: Iterable[NewLayer | StoredLayer], force: bool) -> None:
    """Write the layers' blobs as Caffe lays them out; names with a slash are refused, as Caffe would not find them."""
    with replacing(path, force) as part, library().File(part, "w") as file:
        root = file.create_group("data")
        for layer in layers:
            name = layer.name.encode("utf-8", "surrogateescape")
            if name in (b"", b".") or b"/" in name or b"\0" in name or name in root:
                raise WeightsError(f"layer {shown(layer.name)}: {UNFIT}")
            _write_arrays(root.create_group(name), layer.blobs, _positions(layer))


def _positions(layer: NewLayer | StoredLayer) -> Iterable[int]:
    return layer.positions if isinstance(layer, StoredLayer) else range(len(layer.blobs))


def _write_arrays(group: h5py.Group, blobs: Iterable[NDArray[Any] | Blob], places: Iterable[int]) -> None:
    for place, blob in zip(places, blobs, strict=True):
        with np.errstate(all="ignore"):
            array = blob.array() if isinstance(blob, Blob) else np.asarray(blob, np.float32)
        group.create_dataset(str(place), data=array)


def write_state(
    path: str | os.PathLike[str],
    iter: int,
    learned_net: str,
    history: Iterable[NDArray[Any] | Blob],
    current_step: int,
    force: bool,
) -> None:
    """Write a solver state; the string ends in a zero byte, which Caffe's reader relies on."""
    net = learned_net.encode("utf-8", "surrogateescape")
    with replacing(path, force) as part, library().File(part, "w") as file:
        file["iter"] = np.array([iter], np.int32)
        file["learned_net"] = np.array(net, f"S{len(net) + 1}")
        file["current_step"] = np.array([current_step], np.int32)
        blobs = list(history)
        _write_arrays(file.create_group("history"), blobs, range(len(blobs)))
