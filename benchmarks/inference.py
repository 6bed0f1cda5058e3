"""Attention-56 at 224, converted and its BN folded, under ONNX Runtime against forward in real Caffe, same threads."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.table import Result

BATCH, RUNS = 4, 3
_TIMED = """
import sys, time
import numpy as np
net, weights, onnx, runs, batch, threads = sys.argv[1:]
x = np.random.default_rng(0).standard_normal((int(batch), 3, 224, 224), dtype="float32")
if onnx:
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(threads)
    session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    forward = lambda: session.run(None, {name: x})[-1]
else:
    import caffe
    caffe.set_mode_cpu()
    caffes = caffe.Net(net, weights, caffe.TEST)
    caffes.blobs[caffes.inputs[0]].reshape(*x.shape)
    caffes.blobs[caffes.inputs[0]].data[...] = x
    forward = lambda: caffes.forward()[caffes.outputs[-1]]
made, times = forward(), []
for _ in range(int(runs)):
    start = time.perf_counter()
    forward()
    times.append(time.perf_counter() - start)
np.save(weights + (".onnx.npy" if onnx else ".caffe.npy"), made)
print("images/s", int(batch) / sorted(times)[len(times) // 2])
"""


def write_net(folder: Path) -> tuple[Path, Path, Path]:
    """Write Attention-56 with random weights that keep its numbers in bounds; return prototxt, weights, ONNX file."""
    from converters.common.net_with_weights import read_net_with_weights
    from converters.write_models import write_onnx
    from prototxt_gen import analyse, build, net_text
    from prototxt_gen.schema.dialect import find_dialect
    from prototxt_gen.weights import write
    from tests.support.sane_weights import sane_weights

    net = build("attention-56")
    analysis = analyse(net)
    prototxt, model, onnx = (folder / f"net.{suffix}" for suffix in ("prototxt", "caffemodel", "onnx"))
    prototxt.write_text(net_text(net), encoding="utf-8")
    write(model, analysis, sane_weights(analysis), find_dialect("prototxt-gen"))
    write_onnx(read_net_with_weights(prototxt, model), onnx, verify_output=False)
    return prototxt, model, onnx


def speed(files: tuple[Path, Path, Path], threads: int, in_caffe: bool) -> float:
    """Return images a second, the median of some runs after one to warm up, in a process of its own."""
    net, weights, onnx = map(str, files)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
    arguments = [net, weights, "" if in_caffe else onnx, str(RUNS), str(BATCH), str(threads)]
    done = subprocess.run(
        [sys.executable, "-c", _TIMED, *arguments],
        env={**environment, "GLOG_minloglevel": "2"},
        check=True,
        capture_output=True,
        text=True,
    )
    found = re.search(r"images/s (\S+)", done.stdout)
    assert found is not None, done.stderr
    return float(found[1])


def difference(weights: Path) -> float:
    """Return how far the two outputs are apart, relative to the largest."""
    import numpy as np

    ours, caffes = (np.load(f"{weights}.{who}.npy") for who in ("onnx", "caffe"))
    return float(np.abs(ours - caffes.reshape(ours.shape)).max() / np.abs(caffes).max())


def results() -> Iterator[Result]:
    """Yield what was measured; without real Caffe, ONNX Runtime alone."""
    from importlib.util import find_spec

    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = int(os.environ.get("OMP_NUM_THREADS", threads))
    what = f"Attention-56, batch {BATCH}, {threads} thread{'s' if threads > 1 else ''}"
    with tempfile.TemporaryDirectory() as name:
        files = write_net(Path(name))
        ours = speed(files, threads, in_caffe=False)
        yield Result(f"{what}: ONNX Runtime, BN folded", f"{ours:.2f} images/s")
        if find_spec("caffe") is None:
            return
        caffes = speed(files, threads, in_caffe=True)
        yield Result(f"{what}: real Caffe", f"{caffes:.2f} images/s")
        yield Result("ONNX Runtime against real Caffe", f"{ours / caffes:.1f}×")
        error = difference(files[1])
        yield Result("their outputs apart by", f"{error:.1e}", "at most 1e-4", error <= 1e-4)
