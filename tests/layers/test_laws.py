"""Laws over the registry × examples: every lowering of every layer type against what real Caffe computed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from converters.onnx_export.onnx_graph import Graph
from prototxt_gen import layers
from prototxt_gen.layers.base import LayerType
from prototxt_gen.layers.example import Example
from tests import golden

Array = np.ndarray[Any, Any]
CASES = [
    pytest.param(room, index, id=f"{type_}-{example.name}".replace(" ", "_"))
    for type_, room in sorted(layers.every().items())
    for index, example in enumerate(room.examples)
]
TRAINABLE_TOLERANCE = 1e-4


class Case:
    """An example with its layer, its drawn arrays, and Caffe's record where there is one."""

    def __init__(self, room: LayerType, index: int) -> None:
        self.room, self.index = room, index
        self.example: Example = room.examples[index]
        self.layer = golden.layer_of(room, self.example)
        self.tops = room.infer(self.layer, self.example.bottoms)
        self.bottoms, self.blobs, _ = golden.draw(room, self.example)
        self.record = golden.load(room) if golden.path(room).exists() else {}

    def recorded(self, prefix: str) -> list[Array]:
        found: list[Array] = []
        while (key := f"{self.index}.{prefix}{len(found)}") in self.record:
            found.append(self.record[key])
        return found


def close(got: Array, wanted: Array, tolerance: float, what: str) -> None:
    """Compare relative to the largest value, as a blob's own scale."""
    got, wanted = np.asarray(got, dtype="float64"), np.asarray(wanted, dtype="float64")
    assert got.shape == wanted.shape, f"{what}: shape {got.shape}, Caffe has {wanted.shape}"
    scale = max(1e-6, np.abs(wanted[np.isfinite(wanted)]).max(initial=0.0))
    np.testing.assert_allclose(got / scale, wanted / scale, rtol=0, atol=tolerance, err_msg=what)


@pytest.mark.parametrize(("room", "index"), CASES)
def test_shapes_are_caffes(room: LayerType, index: int) -> None:
    case = Case(room, index)
    if room.sized_by_data:
        pytest.skip("the data decide the shape")
    for top, recorded in zip(case.tops, case.recorded("top"), strict=bool(case.record)):
        assert tuple(top) == recorded.shape


def as_tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


@pytest.fixture
def run_torch() -> Iterator[Any]:
    import torch

    torch.manual_seed(0)

    def run(case: Case, *, gradients: bool) -> tuple[Any, list[Any], tuple[Any, ...]]:
        module = case.room.torch(case.layer, case.example.bottoms)
        case.room.load(module, case.blobs)
        module.train(case.example.phase == "TRAIN")
        bottoms = [torch.from_numpy(b.copy()).requires_grad_(gradients) for b in case.bottoms]
        # a layer in place must not write over a leaf
        return module, bottoms, as_tuple(module(*[b * 1 for b in bottoms]))

    yield run


@pytest.mark.parametrize(("room", "index"), CASES)
def test_torch_is_caffe(room: LayerType, index: int, run_torch: Any) -> None:
    case = Case(room, index)
    _, _, tops = run_torch(case, gradients=False)
    if not room.sized_by_data:
        assert [tuple(top.shape) for top in tops] == [tuple(shape) for shape in case.tops]
    for i, (top, wanted) in enumerate(zip(tops, case.recorded("top"), strict=bool(case.record))):
        close(top.detach().numpy(), wanted, room.tolerance, f"top {i}")


@pytest.mark.parametrize(("room", "index"), CASES)
def test_torch_gradients_are_caffes(room: LayerType, index: int, run_torch: Any) -> None:
    import torch

    case = Case(room, index)
    top_diffs = case.recorded("top_diff")
    if not top_diffs:
        pytest.skip("Caffe has no gradient recorded for this example")
    module, bottoms, tops = run_torch(case, gradients=True)
    pairs = [(t, torch.from_numpy(d)) for t, d in zip(tops, top_diffs, strict=True) if t.requires_grad]
    torch.autograd.backward([t for t, _ in pairs], [d for _, d in pairs])
    for i, bottom in enumerate(bottoms):
        wanted = case.record.get(f"{index}.bottom_diff{i}")
        if wanted is not None:
            grad = torch.zeros_like(bottom) if bottom.grad is None else bottom.grad
            close(grad.numpy(), wanted, TRAINABLE_TOLERANCE, f"gradient of bottom {i}")
    check_blob_gradients(case, module)


def check_blob_gradients(case: Case, module: Any) -> None:
    """A module whose tensors hold their gradients dumps them as the gradients of Caffe's blobs."""
    import torch

    specs = case.room.blobs(case.layer, case.example.bottoms)
    roles = [role for role, spec in specs.items() if not spec.statistic]
    for parameter in module.parameters():
        parameter.data = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    for role, grad in case.room.dump(module, roles).items():
        wanted = case.record[f"{case.index}.blob_diff.{role}"]
        close(grad.reshape(wanted.shape), wanted, TRAINABLE_TOLERANCE, f"gradient of {role}")


@pytest.mark.parametrize(("room", "index"), CASES)
def test_dump_is_the_inverse_of_load(room: LayerType, index: int) -> None:
    case = Case(room, index)
    if not case.blobs:
        pytest.skip("no learned arrays")
    module = room.torch(case.layer, case.example.bottoms)
    room.load(module, case.blobs)
    for role, blob in room.dump(module, list(case.blobs)).items():
        close(blob.reshape(case.blobs[role].shape), case.blobs[role], 1e-5, role)


def has_onnx(room: LayerType) -> bool:
    return type(room).onnx is not LayerType.onnx


@pytest.mark.parametrize(("room", "index"), [case for case in CASES if has_onnx(case.values[0])])  # type: ignore[arg-type]
def test_onnx_runtime_is_caffe(room: LayerType, index: int, run_torch: Any) -> None:
    case = Case(room, index)
    if case.example.phase == "TRAIN":
        pytest.skip("ONNX is for inference")
    wanted = case.recorded("top") or [top.detach().numpy() for top in run_torch(case, gradients=False)[2]]
    for i, (top, expected) in enumerate(zip(run_onnx(case), wanted, strict=True)):
        close(top, expected, room.tolerance, f"top {i}")


def run_onnx(case: Case) -> list[Array]:
    import onnx
    import onnxruntime

    g = Graph(opset=20)
    g.scope = "it"
    names = [f"bottom{i}" for i in range(len(case.bottoms))]
    for name, shape in zip(names, case.example.bottoms, strict=True):
        g.set_shape(name, shape)
    tops = as_tuple(case.room.onnx(g, case.layer, names, case.blobs))
    inputs = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in zip(names, case.example.bottoms, strict=True)
    ]
    outputs = [
        onnx.helper.make_tensor_value_info(top, onnx.TensorProto.FLOAT, [None] * len(shape))
        for top, shape in zip(tops, case.tops, strict=True)
    ]
    graph = onnx.helper.make_graph(g.nodes, "example", inputs, outputs, g.initializers)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", g.opset)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    used = {i.name for i in session.get_inputs()}
    tops_run: list[Array] = session.run(None, {n: b for n, b in zip(names, case.bottoms, strict=True) if n in used})
    return tops_run


@pytest.mark.parametrize("room", [pytest.param(r, id=t) for t, r in sorted(layers.every().items()) if r.examples])
def test_record_is_fresh(room: LayerType) -> None:
    if not golden.path(room).exists():
        pytest.skip(f"no golden tensors of {room.type}: this Caffe does not have the type")
    stored = str(golden.load(room)["fingerprint"])
    assert stored == golden.fingerprint(room.examples, room), f"run: make golden TYPE={room.type}"
