"""Reader and writer of weights files, without protobuf: .caffemodel, .solverstate, .binaryproto, and the HDF5 forms.

    read(path) -> CaffeModel             V0, V1, V2 and HDF5, detected from the contents, not from the file name
    write(path, layers, name)            V2, or HDF5 if the name ends in .h5
    read_solverstate, write_solverstate  state of the solver, from which training can continue
    read_binaryproto, write_binaryproto  mean images

The reader maps the file into memory and skips from field to field by their lengths, so that half a gigabyte opens in a
millisecond; values are read only when `Blob.array` is called. Errors in a file raise WeightsError, which names the file
and the layer.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prototxt_gen.caffemodel import h5, reading, writing
from prototxt_gen.caffemodel.types import Blob, CaffeModel, NewLayer, SolverState, StoredLayer
from prototxt_gen.caffemodel.wire import map_file
from prototxt_gen.common.errors import WeightsError

__all__ = [
    "Blob",
    "CaffeModel",
    "NewLayer",
    "SolverState",
    "StoredLayer",
    "read",
    "read_binaryproto",
    "read_solverstate",
    "write",
    "write_binaryproto",
    "write_solverstate",
]

PathLike = str | os.PathLike[str]

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
FILE_SIGNATURES = {
    b"version https://git-lfs": "a git-lfs pointer: fetch the file itself with `git lfs pull`",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"PK\x03\x04": "a zip archive (as .npz and PyTorch's files are)",
    b"\x1f\x8b": "compressed by gzip: unpack it first",
    b"BZh": "compressed by bzip2: unpack it first",
    b"\xfd7zXZ": "compressed by xz: unpack it first",
    b"7z\xbc\xaf": "a 7-zip archive: unpack it first",
    b"Rar!": "a RAR archive: unpack it first",
    b"\x93NUMPY": "a NumPy array",
    b"<!DOCTYPE": "a web page: the download went wrong",
    b"<!doctype": "a web page: the download went wrong",
    b"<html": "a web page: the download went wrong",
}


def read(path: PathLike) -> CaffeModel:
    """Return the layers of the .caffemodel or .caffemodel.h5 at `path`. Raises WeightsError."""
    data, name = map_file(path), os.fspath(path)
    if is_hdf5(data):
        return h5.read_net(name, data)
    refuse_other_kinds(data, name, "a .caffemodel")
    return reading.parse_net(data, name)


def write(path: PathLike, layers: Iterable[NewLayer | StoredLayer], name: str = "", *, force: bool = False) -> None:
    """Write the layers to `path`, one at a time: HDF5 if it ends in .h5 (blobs only), else .caffemodel (V2).

    `name` is the name of the net. Arrays are written as float32, Blobs are copied in their stored type. Raises
    PrototxtGenError if the file exists and `force` is false. If an error occurs, no file is left.
    """
    if os.fspath(path).endswith(".h5"):
        h5.write_net(path, layers, force)
    else:
        writing.save(path, writing.net_pieces(layers, name), force)


def read_solverstate(path: PathLike) -> SolverState:
    """Return the .solverstate or .solverstate.h5 at `path`. Raises WeightsError."""
    data, name = map_file(path), os.fspath(path)
    if is_hdf5(data):
        return h5.read_state(name, data)
    refuse_other_kinds(data, name, "a .solverstate")
    return reading.parse_state(data, name)


def write_solverstate(
    path: PathLike,
    *,
    iter: int,
    learned_net: str,
    history: Iterable[NDArray[Any] | Blob],
    current_step: int = 0,
    force: bool = False,
) -> None:
    """Write a solver state to `path`: HDF5 if it ends in .h5, as in Caffe (`Solver::Restore`)."""
    if os.fspath(path).endswith(".h5"):
        h5.write_state(path, iter, learned_net, history, current_step, force)
    else:
        writing.save(path, writing.state_pieces(iter, learned_net, history, current_step), force)


def read_binaryproto(path: PathLike) -> NDArray[np.float32]:
    """Return the read-only blob of a .binaryproto: for a mean image 1×C×H×W, with the channel order of the data."""
    data, name = map_file(path), os.fspath(path)
    if is_hdf5(data):
        raise WeightsError(f"{name}: is an HDF5 file, not a .binaryproto")
    refuse_other_kinds(data, name, "a .binaryproto")
    return reading.parse_blob(data, name).array()


def write_binaryproto(path: PathLike, array: NDArray[Any], *, force: bool = False) -> None:
    """Write an array as BlobProto, with the old fields num to width if it has 4 axes, as compute_image_mean does."""
    writing.save(path, writing.blob_chunks(array, legacy=array.ndim == 4), force)


def is_hdf5(data: memoryview) -> bool:
    """Return whether the file is HDF5: it has the signature at byte 0, 512, 1024, 2048 … (`H5Fis_hdf5`)."""
    at = 0
    while at + len(HDF5_MAGIC) <= len(data):
        if data[at : at + len(HDF5_MAGIC)] == HDF5_MAGIC:
            return True
        at = max(512, at * 2)
    return False


def is_text(start: bytes) -> bool:
    """Return whether the bytes look like text: no control characters, and at least a third ASCII."""
    plain = sum(32 <= byte < 127 or byte in b"\t\n\f\r" for byte in start)
    return plain * 3 >= len(start) and all(byte >= 32 or byte in b"\t\n\f\r" for byte in start)


def refuse_other_kinds(data: memoryview, path: str, wanted: str) -> None:
    """Raise WeightsError, with the kind of file, if `data` is a kind that is often mistaken for weights."""
    start = bytes(data[:2048])
    for magic, kind in FILE_SIGNATURES.items():
        if start.startswith(magic):
            raise WeightsError(f"{path}: is {kind}, not {wanted}")
    if is_text(start):
        raise WeightsError(f"{path}: is text (a .prototxt perhaps), not {wanted}")
    mistaken = {0x08: "a .solverstate or a mean .binaryproto", 0x0A: "a .caffemodel"}
    fits = {"a .caffemodel": 0x08, "a .solverstate": 0x0A, "a .binaryproto": 0x0A}
    if start[0] == fits[wanted]:
        raise WeightsError(f"{path}: begins like {mistaken[start[0]]}, not like {wanted}")
