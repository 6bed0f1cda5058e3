"""Utility and recurrent layers beyond the laws: types of forks, data-dependent shapes, state, and errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prototxt_gen import analyse, layers, parse_net, weights
from prototxt_gen.common.errors import NetError, UnsupportedError
from prototxt_gen.ir import Layer
from prototxt_gen.layers.example import Example
from prototxt_gen.runtime.torch_net import TorchNet, as_tensors
from tests import golden
from tests.layers.test_laws import as_tuple
from tests.support.caffe_support import input_layer, make_net

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(7)


def layer_of(type_: str, bottoms: Sequence[tuple[int, ...]], params: str = "", tops: int = 1, **more: Any) -> Layer:
    return golden.layer_of(layers.all_layer_types()[type_], Example("case", tuple(bottoms), params, tops, **more))


def run_torch(
    type_: str,
    bottoms: Sequence[Array],
    params: str = "",
    tops: int = 1,
    blobs: Mapping[str, Array] | None = None,
) -> list[Array]:
    import torch

    shapes = [b.shape for b in bottoms]
    layer_type, layer = layers.all_layer_types()[type_], layer_of(type_, shapes, params, tops)
    layer_type.infer(layer, shapes)
    module = layer_type.torch(layer, shapes)
    layer_type.load(module, blobs or {})
    made = as_tuple(module(*(torch.from_numpy(b.astype("float32")) for b in bottoms)))
    return [top.detach().numpy() for top in made]


def run_onnx(
    type_: str, declared: Sequence[tuple[int, ...]], bottoms: Sequence[Array], params: str = "", tops: int = 1
) -> list[Array]:
    """Run the ONNX model written for the `declared` shapes on arrays that may have another batch size."""
    import onnx
    import onnxruntime

    from converters.onnx_export.onnx_graph import Graph

    g, names = Graph(opset=20), [f"bottom{i}" for i in range(len(bottoms))]
    for name, shape in zip(names, declared, strict=True):
        g.set_shape(name, shape)
    made = as_tuple(layers.all_layer_types()[type_].onnx(g, layer_of(type_, declared, params, tops), names, {}))
    inputs, outputs = (
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in some]
        for some in (names, made)
    )
    graph = onnx.helper.make_graph(g.nodes, "case", inputs, outputs, g.initializers)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    got: list[Array] = session.run(None, {n: b.astype("float32") for n, b in zip(names, bottoms, strict=True)})
    return got


def test_filter_drops_items() -> None:
    x, y, selector = RNG.standard_normal((4, 2, 3)), RNG.standard_normal((4, 5)), np.array([[0], [2], [0], [-1]])
    bottoms = [x, y, selector]
    runs = (run_torch("Filter", bottoms, tops=2), run_onnx("Filter", [b.shape for b in bottoms], bottoms, tops=2))
    for tops in runs:
        np.testing.assert_allclose(tops[0], x[[1, 3]], rtol=1e-6)
        np.testing.assert_allclose(tops[1], y[[1, 3]], rtol=1e-6)


def test_filter_may_drop_all_items() -> None:
    bottoms = [np.ones((2, 3)), np.zeros(2)]
    for tops in (run_torch("Filter", bottoms), run_onnx("Filter", [(2, 3), (2,)], bottoms)):
        assert tops[0].shape == (0, 3)


def test_batch_reindex_refuses_a_negative_index() -> None:
    with pytest.raises(IndexError, match="it: an index is negative"):
        run_torch("BatchReindex", [np.ones((3, 2)), np.array([0, -1])])


def test_eltwise_max_sends_the_gradient_of_a_tie_to_one_bottom() -> None:
    import torch

    module = layers.all_layer_types()["Eltwise"].torch(
        layer_of("Eltwise", [(2,)] * 3, "eltwise_param { operation: MAX }"), ()
    )
    bottoms = [torch.ones(2, requires_grad=True) for _ in range(3)]
    module(*bottoms).sum().backward()
    assert [b.grad.tolist() for b in bottoms if b.grad is not None] == [[0, 0], [1, 1], [0, 0]]


def axpy(a: Array, x: Array, y: Array) -> Array:
    top: Array = y.copy()
    for n, c in np.ndindex(*x.shape[:2]):
        top[n, c] += a.reshape(a.shape[:2])[n, c] * x[n, c]
    return top


def flip(x: Array) -> Array:
    top = np.empty_like(x)
    for n, c, h, w in np.ndindex(*x.shape):
        top[n, c, h, w] = x[n, c, x.shape[2] - 1 - h, x.shape[3] - 1 - w]
    return top


def transpose(x: Array) -> Array:
    top = np.empty((x.shape[3], x.shape[2], x.shape[0], x.shape[1]))
    for n, c, h, w in np.ndindex(*x.shape):
        top[w, h, n, c] = x[n, c, h, w]
    return top


def reverse(x: Array) -> Array:
    return np.stack([x[:, x.shape[1] - 1 - i] for i in range(x.shape[1])], axis=1)


def channel_scale(x: Array, scale: Array) -> Array:
    return np.stack([x[n] * scale.reshape(len(x), *x.shape[2:])[n] for n in range(len(x))])


FORKS: dict[str, tuple[Callable[..., Array], str, list[tuple[int, ...]]]] = {
    "Axpy": (axpy, "", [(2, 3, 1, 1), (2, 3, 2, 2), (2, 3, 2, 2)]),
    "Flip": (flip, "flip_param { flip_height: true }", [(2, 3, 2, 4)]),
    "Transpose": (transpose, "transpose_param { dim: 3 dim: 2 dim: 0 dim: 1 }", [(2, 3, 1, 4)]),
    "Reverse": (reverse, "reverse_param { axis: 1 }", [(2, 3, 4)]),
    "ChannelScale": (channel_scale, "", [(2, 3, 2, 4), (2, 1, 2, 4)]),
}


@pytest.mark.parametrize("type_", FORKS)
def test_fork_types_match_numpy(type_: str) -> None:
    by_hand, params, shapes = FORKS[type_]
    bottoms = [RNG.standard_normal(shape) for shape in shapes]
    wanted = by_hand(*bottoms)
    np.testing.assert_allclose(run_torch(type_, bottoms, params)[0], wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(run_onnx(type_, shapes, bottoms, params)[0], wanted, rtol=1e-5, atol=1e-6)


def lstm_by_hand(x: Array, blobs: Mapping[str, Array]) -> Array:
    """Compute whole sequences, one stream and one step at a time."""
    size = blobs["W_hc"].shape[1]
    top = np.zeros((*x.shape[:2], size))
    for n in range(x.shape[1]):
        hidden = cell = np.zeros(size)
        for t in range(x.shape[0]):
            gates = blobs["W_xc"] @ x[t, n] + blobs["W_hc"] @ hidden + blobs["b_c"]
            i, f, o = (1 / (1 + np.exp(-gates[k * size : (k + 1) * size])) for k in range(3))
            cell = f * cell + i * np.tanh(gates[3 * size :])
            top[t, n] = hidden = o * np.tanh(cell)
    return top


def test_lstm_of_the_ocr_forks_matches_its_definition() -> None:
    x = RNG.standard_normal((4, 2, 3))
    blobs = {"W_xc": RNG.standard_normal((20, 3)), "W_hc": RNG.standard_normal((20, 5)), "b_c": RNG.standard_normal(20)}
    single = {role: blob.astype("float32") for role, blob in blobs.items()}
    (top,) = run_torch("Lstm", [x], "lstm_param { num_output: 5 }", blobs=single)
    np.testing.assert_allclose(top, lstm_by_hand(x, blobs), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("type_", ["LSTM", "RNN"])
def test_state_is_kept_when_a_sequence_continues(type_: str) -> None:
    """Two batches of two steps equal one batch of four, as in Caffe; training and test keep separate states."""
    import torch

    layer_type, x = layers.all_layer_types()[type_], torch.from_numpy(RNG.standard_normal((4, 2, 3)).astype("float32"))
    layer = layer_of(type_, [(4, 2, 3), (4, 2)], "recurrent_param { num_output: 3 }")
    module = layer_type.torch(layer, [(4, 2, 3), (4, 2)])
    specs = layer_type.blobs(layer, [(4, 2, 3), (4, 2)])
    layer_type.load(module, {role: RNG.standard_normal(s.shape).astype("float32") for role, s in specs.items()})
    cont = torch.tensor([[0.0, 0.0], [1, 1], [1, 0], [1, 1]])
    module.train()
    whole = module(x, cont).detach()
    module.eval()
    parts = torch.cat([module(x[:2], cont[:2]), module(x[2:], cont[2:])]).detach()
    torch.testing.assert_close(parts, whole)
    module.reset()  # type: ignore[operator]
    assert not torch.allclose(module(x[2:], cont[2:]), whole[2:])


@pytest.mark.caffe
@pytest.mark.parametrize("type_", ["LSTM", "RNN"])
def test_omitted_streams_keep_their_state(type_: str, tmp_path: Path) -> None:
    """Caffe's blobs keep their memory if they shrink and grow again within it; beyond it, they get new memory."""
    text = f"""layer {{ name: "r" type: "{type_}" bottom: "x" bottom: "cont" top: "h" recurrent_param {{ num_output: 3
        weight_filler {{ type: "uniform" min: -0.5 max: 0.5 }} }} }}"""
    text = input_layer("x", (3, 4, 5)) + input_layer("cont", (3, 4)) + text
    caffes = make_net(tmp_path, text)
    caffes.save(str(tmp_path / "n.caffemodel"))
    analysis = analyse(parse_net(text))
    ours = TorchNet(analysis, weights.read(str(tmp_path / "n.caffemodel"), analysis)).eval()
    for streams in (4, 2, 3, 4, 6, 5, 6):
        given = {"x": RNG.standard_normal((3, streams, 5)), "cont": np.ones((3, streams))}
        for name, array in given.items():
            caffes.blobs[name].reshape(*array.shape)
            caffes.blobs[name].data[...] = array
        caffes.reshape()
        (top,) = as_tuple(ours(*as_tensors(given).values()))
        np.testing.assert_allclose(top.detach().numpy(), caffes.forward()["h"], atol=1e-6, err_msg=str(streams))


BATCHES = [
    ("Reshape", [(2, 6, 4)], "reshape_param { shape { dim: 0 dim: 3 dim: -1 } }", 1),
    ("Reshape", [(2, 6, 4)], "reshape_param { shape { dim: 1 } num_axes: 0 }", 1),
    ("Flatten", [(2, 3, 2, 2)], "flatten_param { axis: 2 }", 1),
    ("Slice", [(2, 6, 2)], "", 3),
    ("ArgMax", [(2, 3, 2, 2)], "argmax_param { top_k: 2 out_max_val: true }", 1),
    ("Reduction", [(2, 3, 2)], "reduction_param { operation: MEAN axis: 1 }", 1),
    ("Axpy", [(2, 3), (2, 3, 2, 2), (2, 3, 2, 2)], "", 1),
    ("Tile", [(2, 3)], "tile_param { tiles: 2 }", 1),
]


@pytest.mark.parametrize(("type_", "shapes", "params", "tops"), BATCHES)
def test_onnx_accepts_any_batch_size(type_: str, shapes: list[tuple[int, ...]], params: str, tops: int) -> None:
    bottoms = [RNG.standard_normal((5, *shape[1:])) for shape in shapes]
    wanted = run_torch(type_, bottoms, params, tops)
    for got, top in zip(run_onnx(type_, shapes, bottoms, params, tops), wanted, strict=True):
        np.testing.assert_allclose(got, top, rtol=1e-5, atol=1e-6)


REFUSED = [
    ("Eltwise", [(2, 3), (2, 4)], "", 1, "bottoms differ, 2x3 and 2x4; SUM needs equal shapes"),
    ("Eltwise", [(2,), (2,)], "eltwise_param { coeff: 1 }", 1, "one coeff for each of its 2 bottoms, not 1"),
    ("Eltwise", [(2,), (2,)], "eltwise_param { operation: PROD coeff: 1 coeff: 1 }", 1, "coeff is allowed with SUM"),
    ("Concat", [(2, 3), (3, 3)], "", 1, "only axis 1 may differ"),
    ("Concat", [(2, 3)], "concat_param { axis: 1 concat_dim: 1 }", 1, "axis and concat_dim are both given"),
    ("Concat", [(2, 3)], "concat_param { concat_dim: 2 }", 1, "concat_dim 2 is not an axis of its bottom 2x3"),
    ("Concat", [(3,)], "", 1, "axis 1 is not an axis of its bottom 3"),
    ("Slice", [(2, 5)], "", 2, "the size 5 of its bottom 2x5 cannot be divided among 2 tops"),
    ("Slice", [(2, 4)], "slice_param { slice_point: 4 }", 2, "its slice points 4 do not fit its bottom 2x4"),
    ("Slice", [(2, 4)], "slice_param { slice_point: 2 slice_point: 2 }", 3, "its slice points 2, 2 do not fit"),
    ("Slice", [(2, 4)], "slice_param { slice_point: 2 }", 3, "3 tops need 2 slice points, not 1"),
    ("Reshape", [(2, 3)], "reshape_param { shape { dim: 4 } }", 1, "2x3 do not fit the shape 4"),
    ("Reshape", [(2, 3)], "reshape_param { shape { dim: -1 dim: -1 } }", 1, "more than one -1"),
    ("Reshape", [(2, 3)], "reshape_param { shape { dim: 0 dim: 0 dim: 0 } }", 1, "no axis to copy"),
    ("Reshape", [(2, 3)], "reshape_param { shape { dim: 1 } axis: 3 }", 1, "axis 3 is out of range"),
    ("Reshape", [(2, 3)], "reshape_param { shape { dim: 6 } num_axes: 3 }", 1, "num_axes 3 is out of range"),
    ("Flatten", [(2, 3, 4)], "flatten_param { axis: 2 end_axis: 0 }", 1, "axis 2 comes after end_axis 0"),
    ("Permute", [(2, 3)], "permute_param { order: 0 order: 0 }", 1, "contains an axis twice"),
    ("Permute", [(2, 3)], "permute_param { order: 2 }", 1, "contains an axis that its bottom 2x3 does not have"),
    ("Tile", [(2, 3)], "", 1, "it needs tiles"),
    ("ArgMax", [(2, 3)], "argmax_param { top_k: 4 }", 1, "top_k must be from 1 to 3"),
    ("BatchReindex", [(3, 2), (2, 1)], "", 1, "must have one axis; it is 2x1"),
    ("Filter", [(3, 2), (3, 2)], "", 1, "one element for each item of the batch"),
    ("Filter", [(3, 2), (3,)], "", 2, "2 bottoms need 1 tops, not 2"),
    ("Axpy", [(2, 3), (2, 4, 1), (2, 4, 1)], "", 1, "bottoms are 2x3 and 2x4x1 and 2x4x1"),
    ("LSTM", [(3, 2), (3, 2)], "recurrent_param { num_output: 3 }", 1, "it needs TxNx… and TxN"),
    ("LSTM", [(3, 2, 4), (3, 2)], "", 1, "num_output must be at least 1"),
    ("LSTM", [(3, 2, 4), (3, 2)], "recurrent_param { num_output: 3 expose_hidden: true }", 1, "4 or 5 bottoms, not 2"),
    ("RNN", [(3, 2, 4), (3, 2), (3, 4)], "recurrent_param { num_output: 3 }", 1, "its static input is 3x4"),
    ("LSTMUnit", [(1, 2, 3), (1, 2, 9), (1, 2)], "", 2, "it needs 1xNxD, 1xNx4D and 1xN"),
    ("Python", [(2, 3)], 'python_param { module: "m" layer: "L" }', 1, "class 'L' of module 'm'"),
]


@pytest.mark.parametrize(("type_", "shapes", "params", "tops", "words"), REFUSED)
def test_wrong_parameters_are_refused(
    type_: str, shapes: list[tuple[int, ...]], params: str, tops: int, words: str
) -> None:
    with pytest.raises(NetError) as raised:
        layers.all_layer_types()[type_].infer(layer_of(type_, shapes, params, tops), shapes)
    assert words in str(raised.value)
    assert str(raised.value).startswith(f"layer 'it' ({type_}): ")


@pytest.mark.parametrize("type_", ["Split", "Reshape", "Flatten", "Transpose", "Reverse"])
def test_layers_that_cannot_work_in_place_are_refused(type_: str) -> None:
    with pytest.raises(NetError, match="it cannot work in place"):
        layers.all_layer_types()[type_].infer(layer_of(type_, [(2, 3)], in_place=True), [(2, 3)])


@pytest.mark.parametrize("operation", ["SUM", "MAX"])
def test_eltwise_sum_and_max_in_place_are_refused(operation: str) -> None:
    layer = layer_of("Eltwise", [(2,), (2,)], f"eltwise_param {{ operation: {operation} }}", in_place=True)
    with pytest.raises(UnsupportedError, match="clears the bottom before it reads it"):
        layers.all_layer_types()["Eltwise"].torch(layer, [(2,), (2,)])


def test_macs_of_recurrent_layers_count_each_step() -> None:
    shapes = [(5, 2, 4), (5, 2), (2, 6)]
    layer, layer_type = layer_of("LSTM", shapes, "recurrent_param { num_output: 3 }"), layers.all_layer_types()["LSTM"]
    assert layer_type.macs(layer, shapes, [(5, 2, 3)]) == 5 * 2 * (12 * 4 + 12 * 3) + 2 * 12 * 6
