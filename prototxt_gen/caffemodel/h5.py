"""Weights and solver states in HDF5, in BVLC Caffe's layout: /data/<layer>/<index>; /iter, /history/<index>, ….

**Source** `Net::ToHDF5` and `CopyTrainedLayersFromHDF5` (src/caffe/net.cpp), `SnapshotSolverStateToHDF5`
(src/caffe/solvers/sgd_solver.cpp), src/caffe/util/hdf5.cpp. The layout has neither the types nor the order of layers:
they are read in the order of their names. h5py locates the arrays; contiguous ones, as Caffe writes them, are then
views of the mapped file, without a copy.
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

from prototxt_gen.caffemodel.reading import MAX_AXES, check_shape
from prototxt_gen.caffemodel.types import Blob, CaffeModel, NewLayer, SolverState, Span, StoredLayer, quoted_name
from prototxt_gen.caffemodel.wire import WireError
from prototxt_gen.common.errors import PrototxtGenError, RuntimeMissingError, WeightsError
from prototxt_gen.common.files import replacing

if TYPE_CHECKING:
    import h5py

MAX_OBJECTS, MAX_DEPTH, MAX_NAME_BYTES = 100_000, 32, 65_536  # hard links may form rings
BAD_NAME = "Caffe finds no such name in HDF5 (one with a slash, a second one, none at all): write a .caffemodel"
MIN_SUSPICIOUS_BYTES, MAX_COMPRESSION = 1 << 24, 100  # bytes; no weights shrink a hundredfold, only a claim does


@dataclass(frozen=True, eq=False)
class ChunkedBlob(Blob):
    """A blob that HDF5 stores in chunks, perhaps compressed. It is read, and copied, when `stored` is called."""

    path: str = field(default="", repr=False)
    dataset: str = field(default="", repr=False)

    def stored(self) -> NDArray[Any]:
        """Return the values in the type that they have in the file."""
        with open_h5(self.path) as file:
            return np.asarray(file[self.dataset][()]).reshape(self.shape)


def import_h5py() -> Any:
    """Return the module h5py. Raises RuntimeMissingError if it is not installed."""
    try:
        import h5py
    except ImportError as error:
        raise RuntimeMissingError("HDF5 weights need h5py: pip install h5py") from error
    return h5py


@contextmanager
def open_h5(path: str) -> Iterator[h5py.File]:
    """Context manager that opens an HDF5 file; exceptions of h5py for a damaged file become WeightsError."""
    h5 = import_h5py()
    try:
        with h5.File(path, "r", locking=False) as file:
            yield file
    except PrototxtGenError:
        raise
    except Exception as error:  # h5py raises nearly every built-in kind on damaged files
        raise WeightsError(f"{path}: damaged HDF5: {' '.join(str(error).split())[:200]}") from error


def read_net(path: str, data: memoryview) -> CaffeModel:
    """Return the layers of the HDF5 weights at `path`, whose bytes are `data`."""
    with open_h5(path) as file:
        root = _group(file, "data", path, "an HDF5 file of weights")
        found: dict[str, dict[int, Blob]] = {}
        for layer, position, blob in _walk_blobs(root, path, data):
            blobs = found.setdefault(layer, {})
            if blob is not None:
                blobs[position] = blob
    if not found:
        raise WeightsError(f"{path}: holds no layers")
    layers = tuple(_layer(name, blobs, index, data) for index, (name, blobs) in enumerate(found.items()))
    return CaffeModel("", layers, "HDF5", path)


def _layer(name: str, blobs: dict[int, Blob], index: int, data: memoryview) -> StoredLayer:
    positions = tuple(sorted(blobs))
    stored = tuple(blobs[position] for position in positions)
    return StoredLayer(name, "", stored, index=index, version="HDF5", positions=positions, source=data)


def _group(file: h5py.File, name: str, path: str, what: str) -> h5py.Group:
    found = file.get(name)
    if not isinstance(found, import_h5py().Group):
        raise WeightsError(f"{path}: has no group /{name}, so it is not {what} from Caffe")
    return found


def _walk_blobs(root: h5py.Group, path: str, data: memoryview) -> Iterator[tuple[str, int, Blob | None]]:
    """Yield (layer, position, blob) for every array below `root`, and (layer, 0, None) for a layer without arrays."""
    pending, seen = [("", root)], 0
    while pending:
        prefix, group = pending.pop()
        names = list(group)
        seen += 1 + len(names)
        if seen > MAX_OBJECTS or prefix.count("/") > MAX_DEPTH:
            raise WeightsError(f"{path}: more groups, or groups deeper, than any net has")
        members = {name: _child(group, name, path) for name in names}
        groups = {name: each for name, each in members.items() if isinstance(each, import_h5py().Group)}
        arrays = {name: each for name, each in members.items() if isinstance(each, import_h5py().Dataset)}
        pending.extend((f"{prefix}/{name}".lstrip("/"), groups[name]) for name in reversed(groups))
        if prefix and not (groups or arrays):
            yield prefix, 0, None
        for name, each in arrays.items():
            where = f"{path}: layer {quoted_name(prefix)}: blob {name}"
            yield prefix, _blob_position(name, prefix, path), _blob(each, where, data)


def _child(group: h5py.Group, name: str, path: str) -> Any:
    """Return a member of `group`. Raises WeightsError for soft links and links to other files."""
    if not isinstance(group.get(name, getlink=True), import_h5py().HardLink):
        raise WeightsError(f"{path}: {quoted_name(name)} is a link to somewhere else, which Caffe never writes")
    return group[name]


def _blob_position(name: str, layer: str, path: str) -> int:
    if not (layer and name.isascii() and name.isdigit() and len(name) < 6):
        raise WeightsError(
            f"{path}: layer {quoted_name(layer)}: array {quoted_name(name)} is not named by a number, as blobs are"
        )
    return int(name)


def _blob(dataset: h5py.Dataset, where: str, data: memoryview) -> Blob:
    """Return a data set as a Blob, which is a view of the mapped file if the data set is contiguous."""
    shape, dtype, size = dataset.shape, dataset.dtype, dataset.id.get_storage_size()
    if shape is None or dtype.kind not in "fiu" or dataset.is_virtual or dataset.external:
        raise WeightsError(f"{where}: is no array of numbers that the file itself holds")
    wanted = math.prod(shape) * dtype.itemsize
    try:
        check_shape(shape, math.prod(shape))
        if len(shape) > MAX_AXES or (
            size < wanted and (not size or (wanted > MIN_SUSPICIOUS_BYTES and wanted > MAX_COMPRESSION * size))
        ):
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
    with open_h5(path) as file:
        history = _group(file, "history", path, "a solver state")
        found = {
            _blob_position(name, "history", path): _blob(
                _child(history, name, path), f"{path}: history blob {name}", data
            )
            for name in history
        }
        net = _name(file, "learned_net") if "learned_net" in file else ""
        step = _integer(file, "current_step") if "current_step" in file else 0
        iter_ = _integer(file, "iter")
    if sorted(found) != list(range(len(found))):
        raise WeightsError(f"{path}: its history blobs are not numbered from 0 without a gap")
    return SolverState(iter_, net, tuple(found[position] for position in range(len(found))), step, path)


def _name(file: h5py.File, name: str) -> str:
    value = file[name]
    if value.size != 1 or value.dtype.kind not in "SO" or value.dtype.itemsize > MAX_NAME_BYTES:
        raise WeightsError(f"{file.filename}: /{name} is not one name")
    return bytes(value[()]).split(b"\0")[0].decode("utf-8", "surrogateescape")


def _integer(file: h5py.File, name: str) -> int:
    value = file[name]
    if value.size != 1 or value.dtype.kind not in "iu":
        raise WeightsError(f"{file.filename}: /{name} is not one integer")
    return int(np.ravel(value[()])[0])


def write_net(path: str | os.PathLike[str], layers: Iterable[NewLayer | StoredLayer], force: bool) -> None:
    """Write the blobs of the layers in Caffe's layout. Raises WeightsError for names that Caffe cannot find in HDF5."""
    with replacing(path, force) as part, import_h5py().File(part, "w") as file:
        root = file.create_group("data")
        for layer in layers:
            name = layer.name.encode("utf-8", "surrogateescape")
            if name in (b"", b".") or b"/" in name or b"\0" in name or name in root:
                raise WeightsError(f"layer {quoted_name(layer.name)}: {BAD_NAME}")
            _write_arrays(root.create_group(name), layer.blobs, _positions(layer))


def _positions(layer: NewLayer | StoredLayer) -> Iterable[int]:
    return layer.positions if isinstance(layer, StoredLayer) else range(len(layer.blobs))


def _write_arrays(group: h5py.Group, blobs: Iterable[NDArray[Any] | Blob], positions: Iterable[int]) -> None:
    for position, blob in zip(positions, blobs, strict=True):
        with np.errstate(all="ignore"):
            array = blob.array() if isinstance(blob, Blob) else np.asarray(blob, np.float32)
        group.create_dataset(str(position), data=array)


def write_state(
    path: str | os.PathLike[str],
    iter: int,
    learned_net: str,
    history: Iterable[NDArray[Any] | Blob],
    current_step: int,
    force: bool,
) -> None:
    """Write a solver state. The string `learned_net` ends with a zero byte, which Caffe's reader needs."""
    net = learned_net.encode("utf-8", "surrogateescape")
    with replacing(path, force) as part, import_h5py().File(part, "w") as file:
        file["iter"] = np.array([iter], np.int32)
        file["learned_net"] = np.array(net, f"S{len(net) + 1}")
        file["current_step"] = np.array([current_step], np.int32)
        blobs = list(history)
        _write_arrays(file.create_group("history"), blobs, range(len(blobs)))
