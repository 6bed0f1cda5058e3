"""Record golden tensors from real Caffe: `python -m tests.golden [TYPE …]`. Default: all types.

Each type is recorded in its own process, because a failed CHECK in Caffe ends the process.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from prototxt_gen import layers
from prototxt_gen.layers.base import LayerType
from prototxt_gen.layers.example import Example
from tests import golden


def record(layer_type: LayerType) -> dict[str, Any]:
    """Return the arrays of all examples of a layer type, with keys `<index>.<kind><number>`."""
    out: dict[str, Any] = {"fingerprint": np.asarray(golden.fingerprint(layer_type.examples, layer_type))}
    for index, example in enumerate(layer_type.examples):
        print(f"{layer_type.type}: {example.name}", file=sys.stderr, flush=True)
        out |= {f"{index}.{key}": array for key, array in _run(layer_type, example).items()}
    return out


def _run(layer_type: LayerType, example: Example) -> dict[str, Any]:
    """Run one example in Caffe; return its bottoms, learned blobs, tops and gradients."""
    import caffe

    net = _net(layer_type, example)
    bottoms, blobs, rng = golden.draw(layer_type, example)
    for i, bottom in enumerate(bottoms):
        net.blobs[f"bottom{i}"].data[...] = bottom
    stored = list(net.params["it"]) if "it" in net.params else []
    assert len(stored) == len(blobs), f"Caffe has {len(stored)} blobs, the layer type {list(blobs)}"
    for target, (role, blob) in zip(stored, blobs.items(), strict=True):
        assert tuple(target.shape) == blob.shape, (
            f"{role}: Caffe has {tuple(target.shape)}, the layer type {blob.shape}"
        )
        target.data[...] = blob
    out = {f"bottom{i}": b for i, b in enumerate(bottoms)} | {f"blob.{role}": b for role, b in blobs.items()}
    net.forward()
    tops = golden.top_names(example)
    out |= {f"top{i}": net.blobs[name].data.copy() for i, name in enumerate(tops)}
    out |= {f"after.{role}": target.data.copy() for target, role in zip(stored, blobs, strict=True)}
    if example.gradients is not False and caffe:
        out |= _gradients(layer_type, example, net, list(blobs), rng)
    return out


def _gradients(
    layer_type: LayerType, example: Example, net: Any, roles: list[str], rng: np.random.Generator
) -> dict[str, Any]:
    out = {}
    for i, name in enumerate(golden.top_names(example)):
        if not layer_type.loss:
            net.blobs[name].diff[...] = rng.standard_normal(net.blobs[name].data.shape)
        out[f"top_diff{i}"] = net.blobs[name].diff.copy()
    net.backward()
    flags = example.gradients if isinstance(example.gradients, tuple) else (True,) * len(example.bottoms)
    out |= {f"bottom_diff{i}": net.blobs[f"bottom{i}"].diff.copy() for i, flag in enumerate(flags) if flag}
    stored = net.params["it"] if roles else []
    return out | {f"blob_diff.{role}": blob.diff.copy() for role, blob in zip(roles, stored, strict=True)}


def _net(layer_type: LayerType, example: Example) -> Any:
    import caffe

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "example.prototxt"
        file.write_text(golden.prototxt(layer_type, example))
        return caffe.Net(str(file), caffe.TRAIN if example.phase == "TRAIN" else caffe.TEST)


def _record_one(type_: str) -> None:
    layer_type = layers.all_layer_types()[type_]
    arrays = record(layer_type)
    made = golden.path(layer_type).with_suffix(".tmp.npz")
    np.savez_compressed(made, **arrays)
    made.replace(golden.path(layer_type))


def _spawn(type_: str) -> bool:
    environment = {**os.environ, "GLOG_minloglevel": "2", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.golden", "--here", type_], env=environment, capture_output=True, text=True
    )
    words = done.stderr.strip().splitlines()
    print(f"{type_}: {'recorded' if done.returncode == 0 else 'FAILED'}")
    if done.returncode:
        print("\n".join(f"    {line}" for line in words[-12:]))
    return done.returncode == 0


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--here"]:
        _record_one(arguments[1])
        return 0
    import caffe

    there = set(caffe.layer_type_list())
    wanted = arguments or sorted(type_ for type_, layer_type in layers.all_layer_types().items() if layer_type.examples)
    missing = [type_ for type_ in wanted if type_ not in there]
    if missing:
        print(f"not in this Caffe: {', '.join(missing)}")
    failed = [type_ for type_ in wanted if type_ in there and not _spawn(type_)]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
