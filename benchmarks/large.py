"""A .caffemodel beyond 2 GiB, where protobuf ends: to ONNX, and one image through what was written."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.child import CONVERT, watched
from benchmarks.table import Result

WIDTH, COUNT = 14336, 3
"""Of the net's InnerProduct layers: 784 MiB each, 2.3 GiB in all."""
GIB = 2**30


def write_net(folder: Path) -> tuple[Path, Path]:
    """Write InnerProduct layers with random weights, one after another; return prototxt and weights."""
    from prototxt_gen import Builder, analyse, net_text
    from prototxt_gen.schema.dialect import find_dialect
    from prototxt_gen.weights import Weights, write

    b = Builder("large")
    x = b.input("data", (1, WIDTH))
    for index in range(1, COUNT + 1):
        x = b.add("InnerProduct", f"ip{index}", x, num_output=WIDTH)
    net = b.build()
    rng = np.random.default_rng(0)
    # one array for all layers, drawn once and repeated: their order shows, as their biases differ
    some = rng.standard_normal(1_000_003, dtype="float32") / np.float32(WIDTH**0.5)
    weight = np.resize(some, (WIDTH, WIDTH))
    blobs = {
        layer.name: {"weight": weight, "bias": rng.standard_normal(WIDTH, dtype="float32")} for layer in net.layers
    }
    prototxt, model = folder / "large.prototxt", folder / "large.caffemodel"
    prototxt.write_text(net_text(net), encoding="utf-8")
    write(model, analyse(net), Weights(blobs), find_dialect("bvlc"))
    return prototxt, model


def error_of(onnx: Path, model: Path) -> float:
    """Return how far the ONNX file's output is from NumPy's on the .caffemodel's arrays, relative to the largest."""
    from converters.verification.runtimes import run_onnx_file
    from prototxt_gen import caffemodel

    x = np.random.default_rng(1).standard_normal((1, WIDTH), dtype="float32")
    (made,) = run_onnx_file(onnx, {"data": x}).values()
    for layer in caffemodel.read(model).layers:
        if layer.blobs:
            weight, bias = (blob.array() for blob in layer.blobs)
            x = x @ weight.T + bias
    return float(np.abs(made - x).max() / np.abs(x).max())


def results() -> Iterator[Result]:
    """Yield what was measured."""
    with tempfile.TemporaryDirectory() as name:
        prototxt, model = write_net(Path(name))
        size = model.stat().st_size
        onnx = Path(name) / "large.onnx"
        seconds, memory = watched(CONVERT, prototxt, model, onnx)
        yield Result(f"a .caffemodel of {size / GIB:.1f} GiB to ONNX", f"{seconds:.2f} s, {memory:.0f} MiB")
        error = error_of(onnx, model)
        yield Result("its output under ONNX Runtime against NumPy's", f"{error:.1e}", "at most 1e-4", error <= 1e-4)
