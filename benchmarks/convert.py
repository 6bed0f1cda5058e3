"""A .caffemodel of VGG-16's size to ONNX, against a plain copy of the same file and against protobuf."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks import inference, large
from benchmarks.child import CONVERT, watched
from benchmarks.table import Result

TITLE = "Conversion"
RUNS = 5
_WIDTHS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
_PROTOBUF = """
import sys, time
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
kinds = descriptor_pb2.FieldDescriptorProto
file = descriptor_pb2.FileDescriptorProto(name="bench.proto", package="bench", syntax="proto2")
for name, field, number, kind, inner in (
    ("Blob", "data", 5, kinds.TYPE_FLOAT, ""),
    ("Layer", "blobs", 7, kinds.TYPE_MESSAGE, ".bench.Blob"),
    ("Net", "layer", 100, kinds.TYPE_MESSAGE, ".bench.Layer"),
):
    made = file.message_type.add(name=name).field.add(name=field, number=number, type=kind)
    made.label = kinds.LABEL_REPEATED
    if inner:
        made.type_name = inner
    else:
        made.options.packed = True
pool = descriptor_pool.DescriptorPool()
pool.Add(file)
net = message_factory.GetMessageClass(pool.FindMessageTypeByName("bench.Net"))()
start = time.perf_counter()
with open(sys.argv[1], "rb") as stored:
    net.ParseFromString(stored.read())
arrays = [np.array(blob.data, "float32") for layer in net.layer for blob in layer.blobs]
print(time.perf_counter() - start)
"""


def vgg(folder: Path) -> tuple[Path, Path]:
    """Write VGG-16's net with random weights, 553 MB; return prototxt and weights."""
    from prototxt_gen import Builder, Value, analyse, net_text
    from prototxt_gen.schema.dialect import find_dialect
    from prototxt_gen.weights import Weights, write

    b = Builder("VGG-16")
    x: Value = b.input("data", (1, 3, 224, 224))
    for stage, (width, count) in enumerate(_WIDTHS, 1):
        for index in range(1, count + 1):
            x = b.add("Convolution", f"conv{stage}_{index}", x, num_output=width, kernel_size=3, pad=1)
            x = b.add("ReLU", f"relu{stage}_{index}", x, in_place=True)
        x = b.add("Pooling", f"pool{stage}", x, pool="MAX", kernel_size=2, stride=2)
    for name, width in (("fc6", 4096), ("fc7", 4096), ("fc8", 1000)):
        x = b.add("InnerProduct", name, x, num_output=width)
    net = b.build()
    rng, analysis = np.random.default_rng(0), analyse(net)
    blobs = {
        row.layer.name: {role: rng.standard_normal(spec.shape, dtype="float32") for role, spec in row.blobs.items()}
        for row in analysis.rows
        if row.blobs
    }
    prototxt, model = folder / "vgg.prototxt", folder / "vgg.caffemodel"
    prototxt.write_text(net_text(net), encoding="utf-8")
    write(model, analysis, Weights(blobs), find_dialect("bvlc"))
    return prototxt, model


def copied(model: Path, out: Path) -> float:
    """Return the seconds that `cp` takes."""
    start = time.perf_counter()
    subprocess.run(["cp", str(model), str(out)], check=True)
    return time.perf_counter() - start


def _by_turns(runs: Sequence[Callable[[], float]], times: int = RUNS) -> list[float]:
    """Return the median seconds of each, run by turns, so that what else the machine does falls on all alike."""
    seconds = [[run() for run in runs] for _ in range(times)]
    return [median(each) for each in zip(*seconds, strict=True)]


@dataclass
class Race:
    """VGG-16's files in a folder, and what is run over them by turns; `memory` is what each conversion took."""

    folder: Path
    prototxt: Path
    model: Path
    memory: list[float] = field(default_factory=list)

    def copy(self) -> float:
        """Copy the weights, into a new file."""
        out = self._fresh("copy")
        return copied(self.model, out)

    def convert(self) -> float:
        """Convert in a process that has its modules loaded; only the conversion counts."""
        seconds, most = watched(CONVERT, self.prototxt, self.model, self._fresh("vgg.onnx"))
        self.memory.append(most)
        return seconds

    def command(self) -> float:
        """Convert from the command line, Python's start included."""
        start = time.perf_counter()
        arguments = ["convert", "onnx", str(self.prototxt), str(self.model), "-o", str(self._fresh("vgg.onnx"))]
        run = [sys.executable, "-m", "prototxt_gen", *arguments, "--no-verify"]
        subprocess.run(run, check=True, capture_output=True)
        return time.perf_counter() - start

    def _fresh(self, name: str) -> Path:
        (self.folder / name).unlink(missing_ok=True)
        return self.folder / name


def results() -> Iterator[Result]:
    """Yield what was measured and what is wanted."""
    with tempfile.TemporaryDirectory() as name:
        race = Race(Path(name), *vgg(Path(name)))
        cp, ours, whole = _by_turns((race.copy, race.convert, race.command))
        theirs, their_memory = watched(_PROTOBUF, race.model)
    most = max(race.memory)
    yield Result(f"`cp` of {race.model.name}, 553 MB", f"{cp:.2f} s")
    yield Result("to ONNX, checked but not run, modules loaded", f"{ours:.2f} s")
    yield Result("ratio of the two", f"{ours / cp:.2f}", "at most 2", ours <= 2 * cp)
    yield Result("`prototxt-gen convert onnx --no-verify`, Python's start and imports included", f"{whole:.2f} s")
    yield Result("most private memory", f"{most:.0f} MiB", "under 300 MiB", most < 300)
    yield Result("protobuf alone, parsed and made arrays", f"{theirs:.2f} s, {their_memory:.0f} MiB")
    yield from large.results()
    yield from inference.results()
