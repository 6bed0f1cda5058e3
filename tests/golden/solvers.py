"""Golden solvers: ten iterations of real Caffe's six solvers on a small net.

`python -m tests.golden.solvers` records `tests/golden/solvers.npz`, with which every trainer is compared on machines
without Caffe. All cases start from the same weights and use the same batches; iteration i uses batches i·iter_size and
following.

    initial.<layer>.<blob>           weights before training
    data, label                      all images and labels, in batches of BATCH
    <case>.weights.<layer>.<blob>    weights after ITERATIONS
    <case>.history.<index>           as in a .solverstate
    <case>.loss, <case>.rate         one number per iteration; the loss is that of its last batch
"""

from __future__ import annotations

import sys
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).with_name("solvers.npz")
Array = np.ndarray[Any, Any]
BATCH, ITERATIONS, MOST_SIZE, SHAPE, CLASSES = 4, 10, 2, (3, 5, 5), 3

NET = f"""
name: "solvers"
layer {{
  name: "data" type: "MemoryData" top: "data" top: "label"
  memory_data_param {{ batch_size: {BATCH} channels: 3 height: 5 width: 5 }}
}}
layer {{
  name: "conv" type: "Convolution" bottom: "data" top: "conv"
  param {{ lr_mult: 1 decay_mult: 1 }} param {{ lr_mult: 2 decay_mult: 0 }}
  convolution_param {{ num_output: 2 kernel_size: 3 stride: 2 }}
}}
layer {{ name: "tanh" type: "TanH" bottom: "conv" top: "conv" }}
layer {{
  name: "ip1" type: "InnerProduct" bottom: "conv" top: "ip1"
  param {{ name: "shared" lr_mult: 0.5 decay_mult: 3 }} param {{ lr_mult: 0 decay_mult: 1 }}
  inner_product_param {{ num_output: 8 }}
}}
layer {{
  name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
  param {{ name: "shared" }} param {{ lr_mult: 1 }}
  inner_product_param {{ num_output: 8 }}
}}
layer {{
  name: "ip3" type: "InnerProduct" bottom: "ip2" top: "ip3"
  inner_product_param {{ num_output: {CLASSES} }}
}}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip3" bottom: "label" top: "loss" loss_weight: 1.5 }}
"""
"""Multipliers of all kinds, a frozen bias, one weight shared by two layers, a loss weight."""

TYPES = {
    "SGD": "base_lr: 0.05 momentum: 0.9",
    "Nesterov": "base_lr: 0.05 momentum: 0.9",
    "AdaGrad": "base_lr: 0.05 delta: 1e-6",
    "RMSProp": "base_lr: 0.01 rms_decay: 0.95 delta: 1e-6",
    "AdaDelta": "base_lr: 1 momentum: 0.95 delta: 1e-4",
    "Adam": "base_lr: 0.02 momentum: 0.9 momentum2: 0.99 delta: 1e-6",
}
POLICIES = {
    "fixed": "",
    "step": "gamma: 0.5 stepsize: 3",
    "exp": "gamma: 0.9",
    "inv": "gamma: 0.3 power: 0.75",
    "multistep": "gamma: 0.4 stepvalue: 2 stepvalue: 5 stepvalue: 8",
    "poly": "power: 1.5",
    "sigmoid": "gamma: 0.8 stepsize: 5",
}
VARIANTS = {
    "plain": "",
    "L1": 'weight_decay: 0.01 regularization_type: "L1"',
    "iter_size": "weight_decay: 0.01 iter_size: 2",
    "clip": "weight_decay: 0.01 clip_gradients: 0.5",
    "everything": 'weight_decay: 0.02 regularization_type: "L1" iter_size: 2 clip_gradients: 1',
}


def _cases() -> dict[str, str]:
    """Return the solver text of each case.

    SGD is combined with every policy, the other types with two of them, and every type with every variant.
    """
    made = {}
    for type_, own in TYPES.items():
        for policy, fields in POLICIES.items():
            if type_ == "SGD" or policy in ("step", "poly"):
                made[f"{type_}/{policy}"] = _solver(type_, own, policy, f"{fields} weight_decay: 0.01")
        for variant, fields in VARIANTS.items():
            made[f"{type_}/{variant}"] = _solver(type_, own, "fixed", fields)
    made["SGD/no momentum"] = _solver("SGD", "base_lr: 0.2", "inv", POLICIES["inv"])
    return made


def _solver(type_: str, own: str, policy: str, fields: str) -> str:
    return f'net: "net.prototxt" type: "{type_}" {own} lr_policy: "{policy}" {fields} max_iter: {ITERATIONS}'


CASES = _cases()
"""The text of each case's solver."""


def fingerprint() -> int:
    """Return a checksum of the net and the cases; if it changes, the file must be recorded again."""
    return zlib.crc32(repr((NET, sorted(CASES.items()))).encode())


def load() -> dict[str, Array]:
    """Return the recorded arrays."""
    with np.load(FILE) as stored:
        found = dict(stored)
    assert found["fingerprint"] == fingerprint(), "record anew: python -m tests.golden.solvers"
    return found


def batch(golden: Mapping[str, Array], index: int) -> dict[str, Array]:
    """Return the blobs of a batch, counted from 0 at the start of training."""
    part = slice(index * BATCH, (index + 1) * BATCH)
    return {"data": golden["data"][part], "label": golden["label"][part]}


def initial(golden: Mapping[str, Array]) -> dict[str, list[Array]]:
    """Return the weights before training, by layer."""
    return blobs(golden, "initial")


def blobs(golden: Mapping[str, Array], what: str) -> dict[str, list[Array]]:
    """Return the arrays `<what>.<layer>.<index>`, by layer."""
    found: dict[str, list[Array]] = {}
    for key, array in golden.items():
        name, _, rest = key.partition(f"{what}.")
        if not name and rest:
            found.setdefault(rest.rpartition(".")[0], []).append(array)
    return found


def history(golden: Mapping[str, Array], case: str) -> list[Array]:
    """Return the history blobs of a case, in their order."""
    keys = [key for key in golden if key.startswith(f"{case}.history.")]
    return [golden[key] for key in sorted(keys, key=lambda key: int(key.rpartition(".")[2]))]


def draw() -> dict[str, Array]:
    """Draw the weights, images and labels that all cases share."""
    rng = np.random.default_rng(20)
    count = BATCH * ITERATIONS * MOST_SIZE
    shapes = {"conv": [(2, 3, 3, 3), (2,)], "ip1": [(8, 8), (8,)], "ip2": [(8, 8), (8,)], "ip3": [(3, 8), (3,)]}
    made = {
        f"initial.{layer}.{i}": (rng.standard_normal(shape) / 4).astype(np.float32)
        for layer, each in shapes.items()
        for i, shape in enumerate(each)
    }
    made["initial.ip2.0"] = made["initial.ip1.0"]
    made["data"] = rng.standard_normal((count, *SHAPE)).astype(np.float32)
    made["label"] = rng.integers(0, CLASSES, count).astype(np.float32)
    return made


def record() -> dict[str, Array]:
    """Run every case in Caffe and return all arrays."""
    made = draw() | {"fingerprint": np.asarray(fingerprint())}
    for case in CASES:
        print(case, file=sys.stderr, flush=True)
        made |= {f"{case}.{key}": array for key, array in _run(case, made).items()}
    return made


def _run(case: str, given: Mapping[str, Array]) -> dict[str, Array]:
    solver = _caffe_solver(case)
    net = solver.net
    for layer, arrays in initial(given).items():
        for target, array in zip(net.params[layer], arrays, strict=True):
            target.data[...] = array
    net.set_input_arrays(given["data"], given["label"].reshape(-1, 1, 1, 1))
    rates, losses = [], []
    for _ in range(ITERATIONS):
        rates.append(solver.lr)
        solver.step(1)
        losses.append(1.5 * float(net.blobs["loss"].data))
    out = {f"weights.{layer}.{i}": b.data.copy() for layer, each in net.params.items() for i, b in enumerate(each)}
    out |= {f"history.{i}": blob.data.copy() for i, blob in enumerate(solver.history)}
    return out | {"rate": np.asarray(rates, np.float32), "loss": np.asarray(losses, np.float32)}


def _caffe_solver(case: str) -> Any:
    import caffe

    with tempfile.TemporaryDirectory() as folder:
        net, solver = Path(folder) / "net.prototxt", Path(folder) / "solver.prototxt"
        net.write_text(NET)
        solver.write_text(CASES[case].replace("net.prototxt", str(net)))
        return caffe.get_solver(str(solver))


def main() -> None:
    """Record all cases."""
    made = record()
    temporary = FILE.with_suffix(".tmp.npz")
    np.savez_compressed(temporary, **made)  # type: ignore[arg-type]  # numpy's stub takes a name for an option
    temporary.replace(FILE)


if __name__ == "__main__":
    main()
