"""Laws that hold for every example of every layer type: PyTorch and ONNX Runtime compute what real Caffe computed."""

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
    pytest.param(layer_type, index, id=f"{type_}-{example.name}".replace(" ", "_"))
    for type_, layer_type in sorted(layers.all_layer_types().items())
    for index, example in enumerate(layer_type.examples)
]
TRAINABLE_TOLERANCE = 1e-4


class Case:
    """An example with its layer, its drawn arrays, and Caffe's results if they are recorded."""

    def __init__(self, layer_type: LayerType, index: int) -> None:
        self.layer_type, self.index = layer_type, index
        self.example: Example = layer_type.examples[index]
        self.layer = golden.layer_of(layer_type, self.example)
        self.tops = layer_type.infer(self.layer, self.example.bottoms)
        self.bottoms, self.blobs, _ = golden.draw(layer_type, self.example)
        self.record = golden.load(layer_type) if golden.path(layer_type).exists() else {}

    def recorded(self, prefix: str) -> list[Array]:
        found: list[Array] = []
        while (key := f"{self.index}.{prefix}{len(found)}") in self.record:
            found.append(self.record[key])
        return found


def close(got: Array, wanted: Array, tolerance: float, what: str) -> None:
    """Compare relative to the largest value of the blob."""
    got, wanted = np.asarray(got, dtype="float64"), np.asarray(wanted, dtype="float64")
    assert got.shape == wanted.shape, f"{what}: shape {got.shape}, Caffe has {wanted.shape}"
    scale = max(1e-6, np.abs(wanted[np.isfinite(wanted)]).max(initial=0.0))
    np.testing.assert_allclose(got / scale, wanted / scale, rtol=0, atol=tolerance, err_msg=what)


@pytest.mark.parametrize(("layer_type", "index"), CASES)
def test_shapes_match_caffe(layer_type: LayerType, index: int) -> None:
    case = Case(layer_type, index)
    if layer_type.sized_by_data:
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
        module = case.layer_type.torch(case.layer, case.example.bottoms)
        case.layer_type.load(module, case.blobs)
        module.train(case.example.phase == "TRAIN")
        bottoms = [torch.from_numpy(b.copy()).requires_grad_(gradients) for b in case.bottoms]
        # a layer in place must not write over a leaf
        return module, bottoms, as_tuple(module(*[b * 1 for b in bottoms]))

    yield run


@pytest.mark.parametrize(("layer_type", "index"), CASES)
def test_pytorch_matches_caffe(layer_type: LayerType, index: int, run_torch: Any) -> None:
    case = Case(layer_type, index)
    _, _, tops = run_torch(case, gradients=False)
    if not layer_type.sized_by_data:
        assert [tuple(top.shape) for top in tops] == [tuple(shape) for shape in case.tops]
    for i, (top, wanted) in enumerate(zip(tops, case.recorded("top"), strict=bool(case.record))):
        close(top.detach().numpy(), wanted, layer_type.tolerance, f"top {i}")


@pytest.mark.parametrize(("layer_type", "index"), CASES)
def test_pytorch_gradients_match_caffe(layer_type: LayerType, index: int, run_torch: Any) -> None:
    import torch

    case = Case(layer_type, index)
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
    """Dump a module whose tensors were replaced by their gradients; compare with the gradients of Caffe's blobs."""
    import torch

    specs = case.layer_type.blobs(case.layer, case.example.bottoms)
    roles = [role for role, spec in specs.items() if not spec.statistic]
    for parameter in module.parameters():
        parameter.data = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    for role, grad in case.layer_type.dump(module, roles).items():
        wanted = case.record[f"{case.index}.blob_diff.{role}"]
        close(grad.reshape(wanted.shape), wanted, TRAINABLE_TOLERANCE, f"gradient of {role}")


@pytest.mark.parametrize(("layer_type", "index"), CASES)
def test_dump_is_the_inverse_of_load(layer_type: LayerType, index: int) -> None:
    case = Case(layer_type, index)
    if not case.blobs:
        pytest.skip("no learned arrays")
    module = layer_type.torch(case.layer, case.example.bottoms)
    layer_type.load(module, case.blobs)
    for role, blob in layer_type.dump(module, list(case.blobs)).items():
        close(blob.reshape(case.blobs[role].shape), case.blobs[role], 1e-5, role)


def has_onnx(layer_type: LayerType) -> bool:
    return type(layer_type).onnx is not LayerType.onnx


@pytest.mark.parametrize(("layer_type", "index"), [case for case in CASES if has_onnx(case.values[0])])  # type: ignore[arg-type]
def test_onnx_runtime_matches_caffe(layer_type: LayerType, index: int, run_torch: Any) -> None:
    case = Case(layer_type, index)
    if case.example.phase == "TRAIN":
        pytest.skip("ONNX is for inference")
    wanted = case.recorded("top") or [top.detach().numpy() for top in run_torch(case, gradients=False)[2]]
    for i, (top, expected) in enumerate(zip(run_onnx(case), wanted, strict=True)):
        close(top, expected, layer_type.tolerance, f"top {i}")


def run_onnx(case: Case) -> list[Array]:
    import onnx
    import onnxruntime

    g = Graph(opset=20)
    g.scope = "it"
    names = [f"bottom{i}" for i in range(len(case.bottoms))]
    for name, shape in zip(names, case.example.bottoms, strict=True):
        g.set_shape(name, shape)
    tops = as_tuple(case.layer_type.onnx(g, case.layer, names, case.blobs))
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


@pytest.mark.parametrize(
    "layer_type", [pytest.param(r, id=t) for t, r in sorted(layers.all_layer_types().items()) if r.examples]
)
def test_golden_file_matches_the_examples(layer_type: LayerType) -> None:
    if not golden.path(layer_type).exists():
        pytest.skip(f"no golden tensors of {layer_type.type}: this Caffe does not have the type")
    stored = str(golden.load(layer_type)["fingerprint"])
    assert stored == golden.fingerprint(layer_type.examples, layer_type), f"run: make golden TYPE={layer_type.type}"
