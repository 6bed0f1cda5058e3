"""Forms in which weights have been stored, written by Caffe's own protobuf classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Store = Callable[[Any, Path], "Path | None"]
"""Writes the weights of a Caffe net into a folder; returns the file that Caffe must load, or None."""


def plain(net: Any, place: Path) -> Path | None:
    """Store the weights as Caffe does today."""
    net.save(str(place / "net.caffemodel"))
    return None


def hdf5(net: Any, place: Path) -> Path | None:
    file = place / "net.caffemodel.h5"
    net.save_hdf5(str(file))
    return file


def legacy(net: Any, place: Path) -> Path | None:
    """Store blobs with num, channels, height and width, as before 2014."""
    return _rewritten(net, place, _legacy_dims)


def double(net: Any, place: Path) -> Path | None:
    return _rewritten(net, place, _double)


def with_diffs(net: Any, place: Path) -> Path | None:
    """Store the gradients too, as a solver does with snapshot_diff."""
    return _rewritten(net, place, lambda blob: blob.diff.extend([7.0] * len(blob.data)))


def half(net: Any, place: Path) -> Path | None:
    """Store half floats, as NVCaffe and OpenCV's shrinker do; the net's own blobs are rounded in the same way."""
    for blobs in net.params.values():
        for blob in blobs:
            blob.data[...] = blob.data.astype("float16").astype("float32")
    _rewritten(net, place, _half)
    return None


def extra(net: Any, place: Path) -> Path | None:
    """Add a layer that the net does not have."""

    def change(model: Any) -> None:
        model.layer.add(name="fc8_old", type="InnerProduct").blobs.add(data=[1.0, 2.0]).shape.dim.extend([1, 2])

    return _changed(net, place, change)


def missing(net: Any, place: Path) -> Path | None:
    """Omit the first layer that has blobs."""

    def change(model: Any) -> None:
        del model.layer[[bool(layer.blobs) for layer in model.layer].index(True)]

    return _changed(net, place, change)


def one_too_many(net: Any, place: Path) -> Path | None:
    def change(model: Any) -> None:
        [layer for layer in model.layer if layer.blobs][-1].blobs.add(data=[1.0]).shape.dim.append(1)

    return _changed(net, place, change)


def last_differs(net: Any, place: Path) -> Path | None:
    """Change the last blob of the file."""

    def change(model: Any) -> None:
        [layer for layer in model.layer if layer.blobs][-1].blobs[-1].data[0] += 3

    return _changed(net, place, change)


def empty_copy(net: Any, place: Path) -> Path | None:
    """Add a second layer with the name of the last one and without blobs."""
    return _changed(net, place, lambda model: model.layer.add(name=model.layer[-1].name, type=model.layer[-1].type))


def odd_copy(net: Any, place: Path) -> Path | None:
    """Add a second layer with the name of the last one and right blobs; transpose the blobs of the first."""

    def change(model: Any) -> None:
        first = model.layer[-1]
        model.layer.add().CopyFrom(first)
        first.blobs[0].shape.dim[:] = first.blobs[0].shape.dim[::-1]

    return _changed(net, place, change)


def needless(net: Any, place: Path) -> Path | None:
    """Add a blob to the last layer, which needs none."""
    return _changed(net, place, lambda model: model.layer[-1].blobs.add(data=[1.0]).shape.dim.append(1))


def transposed(net: Any, place: Path) -> Path | None:
    """Swap the first two axes of the first blob: as many elements, another shape."""

    def change(model: Any) -> None:
        shape = next(layer for layer in model.layer if layer.blobs).blobs[0].shape
        shape.dim[0], shape.dim[1] = shape.dim[1], shape.dim[0]

    return _changed(net, place, change)


def version1(net: Any, place: Path) -> Path | None:
    """Store V1 layers, with types as numbers and blobs of four dims."""
    from caffe.proto import caffe_pb2

    def change(model: Any) -> None:
        for layer in _computing(model):
            kinds = {name.replace("_", ""): name for name, _ in caffe_pb2.V1LayerParameter.LayerType.items()}
            old = model.layers.add(name=layer.name, bottom=layer.bottom, top=layer.top)
            old.type = caffe_pb2.V1LayerParameter.LayerType.Value(kinds.get(layer.type.upper(), "NONE"))
            old.blobs.extend(layer.blobs)
            for blob in old.blobs:
                _legacy_dims(blob)
        del model.layer[:]

    return _changed(net, place, change)


def version0(net: Any, place: Path) -> Path | None:
    """Store V0 layers, with name, type and blobs in an inner message."""
    types = {"Convolution": "conv", "InnerProduct": "innerproduct", "Pooling": "pool", "ReLU": "relu"}

    def change(model: Any) -> None:
        for layer in _computing(model):
            inner = model.layers.add(bottom=layer.bottom, top=layer.top).layer
            inner.name, inner.type = layer.name, types.get(layer.type, layer.type.lower())
            inner.blobs.extend(layer.blobs)
            for blob in inner.blobs:
                _legacy_dims(blob)
        model.input.extend(layer.top[0] for layer in model.layer if layer.type == "Input")
        model.input_dim.extend([1, 1, 1, 1])
        del model.layer[:]

    return _changed(net, place, change)


def _computing(model: Any) -> list[Any]:
    """Return the layers except those that only declare inputs, which old files do not have."""
    return [layer for layer in model.layer if layer.type != "Input"]


def _changed(net: Any, place: Path, change: Callable[[Any], None]) -> Path:
    from caffe.proto import caffe_pb2

    file = place / "net.caffemodel"
    net.save(str(file))
    model = caffe_pb2.NetParameter.FromString(file.read_bytes())
    change(model)
    file.write_bytes(model.SerializeToString())
    return file


def _rewritten(net: Any, place: Path, change: Callable[[Any], None]) -> Path:
    def change_all(model: Any) -> None:
        for blob in _blobs(model):
            change(blob)

    return _changed(net, place, change_all)


def _blobs(model: Any) -> Iterator[Any]:
    for layer in model.layer:
        yield from layer.blobs


def _legacy_dims(blob: Any) -> None:
    dims = [1] * (4 - len(blob.shape.dim)) + list(blob.shape.dim)
    blob.num, blob.channels, blob.height, blob.width = dims
    blob.ClearField("shape")


def _double(blob: Any) -> None:
    blob.double_data.extend(blob.data)
    del blob.data[:]


def _half(blob: Any) -> None:
    """Write fields 10 and 12 of the fork's BlobProto, which this schema does not have."""
    raw = np.asarray(blob.data, dtype="<f2").tobytes()
    del blob.data[:]
    blob.MergeFromString(bytes([10 << 3, 2, 12 << 3 | 2]) + _varint(len(raw)) + raw)


def _varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])


def merged(number: int, fourth: str, shape: tuple[int, ...] = (1, -1, 1, 1)) -> Store:
    """Store BatchNorm `bn` and Scale `scale` as one BN of a fork.

    `number` is the field number of bn_param; `fourth` says what the fourth blob holds.
    """

    def arrays(mean: Array, variance: Array, factor: Array, slope: Array, bias: Array) -> list[Array]:
        kept = 1 / np.sqrt(variance.astype("float64") + 1e-5) if fourth == "inverse std" else variance
        return [array.reshape(shape) for array in (slope, bias, mean, kept)]

    field = _varint(number << 3 | 2) + bytes([5, 4 << 3 | 5]) + np.float32(1e-5).tobytes() if number else b""
    return joined("BN", field, arrays)


def joined(type_: str, field: bytes, arrays: Callable[..., list[Array]]) -> Store:
    """Store the layers `bn` and `scale` as one layer of this type, whose blobs `arrays` computes."""

    def store(net: Any, place: Path) -> Path | None:
        blobs = arrays(*(blob.data for name in ("bn", "scale") for blob in net.params[name]))

        def change(model: Any) -> None:
            del model.layer[[layer.name for layer in model.layer].index("scale")]
            (layer,) = (one for one in model.layer if one.name == "bn")
            layer.type = type_
            layer.MergeFromString(field)
            del layer.blobs[:]
            for array in blobs:
                layer.blobs.add(data=array.ravel()).shape.dim.extend(array.shape)

        _changed(net, place, change)
        return None

    return store


def segnet(mean: Array, variance: Array, factor: Array, slope: Array, bias: Array) -> list[Array]:
    by = slope / np.sqrt(variance.astype("float64") + 1e-5)
    return [by.reshape(1, -1, 1, 1), (bias - mean * by).reshape(1, -1, 1, 1)]


def xilinx(mean: Array, variance: Array, factor: Array, scale: Array, bias: Array) -> list[Array]:
    return [*(array.reshape(1, -1, 1, 1) for array in (scale, bias, mean, variance)), factor.reshape(1, 1, 1, 1)]


STORAGES: dict[str, Store] = {
    "BN 148 inverse std": merged(148, "inverse std"),
    "BN 148 inverse std, 1xC": merged(148, "inverse std", (1, -1)),
    "BN 137 variance": merged(137, "variance"),
    "BN 152 variance": merged(152, "variance"),
    "BN 1111 inverse std": merged(1111, "inverse std"),
    "BN 200 variance": merged(200, "variance"),
    "BN 200 inverse std": merged(200, "inverse std"),
    "BN 0 variance": merged(0, "variance"),
    "BN SegNet": joined("BN", b"", segnet),
    "BatchNorm Xilinx": joined("BatchNorm", b"", xilinx),
    "BatchNorm NVCaffe": joined("BatchNorm", b"", lambda *arrays: list(arrays)),
    "caffemodel": plain,
    "h5": hdf5,
    "legacy dims": legacy,
    "double": double,
    "diffs": with_diffs,
    "half": half,
    "extra": extra,
    "missing": missing,
    "one too many": one_too_many,
    "transposed": transposed,
    "last differs": last_differs,
    "empty copy": empty_copy,
    "odd copy": odd_copy,
    "needless": needless,
    "V1": version1,
    "V0": version0,
}
