"""Builder: shapes are known after each add, wrong layers raise at once, names are unique."""

from __future__ import annotations

from typing import Any

import pytest

from prototxt_gen.analysis import analyse
from prototxt_gen.common.errors import NetError, UnsupportedError
from prototxt_gen.ir import Value
from prototxt_gen.layers.vision.convolution import ConvolutionParameter
from prototxt_gen.net.builder import Builder
from prototxt_gen.schema.caffe_proto import NetParameter


@pytest.fixture
def net() -> tuple[Builder, Value]:
    builder = Builder("tiny")
    return builder, builder.input("data", (2, 3, 8, 8))


Started = tuple[Builder, Value]


def test_values_know_their_shapes(net: Started) -> None:
    b, x = net
    x = b.add("Convolution", "conv1", x, num_output=4, kernel_size=3, pad=1, stride=2)
    assert (x.blob, x.shape, x.channels) == ("conv1", (2, 4, 4, 4), 4)
    x = b.add("ReLU", "relu1", x, in_place=True)
    assert (x.blob, x.version) == ("conv1", 1)
    made = b.add_many("Slice", "slice", x, tops=("a", "b"), axis=1)
    assert [value.shape for value in made] == [(2, 2, 4, 4)] * 2
    built = b.build()
    assert [layer.name for layer in built.layers] == ["conv1", "relu1", "slice"]
    assert built.outputs == made
    assert analyse(built).complete
    assert built.layers[0].get(ConvolutionParameter) == ConvolutionParameter(
        num_output=4, kernel_size=(3,), pad=(1,), stride=(2,)
    )


def test_scopes_nest_and_end(net: Started) -> None:
    b, x = net
    with b.scope("stage1"), b.scope("block1"):
        inner = b.add("ReLU", "relu", x)
        assert b.name("x") == "stage1/block1/x"
    with pytest.raises(ZeroDivisionError), b.scope("broken"):
        _ = 1 // 0
    assert inner.blob == "stage1/block1/relu"
    assert b.add("ReLU", "relu", x).blob == "relu"


def test_fields_of_the_layer_and_of_its_parameters_are_distinguished(net: Started) -> None:
    b, x = net
    b.add("Convolution", "conv", x, num_output=1, kernel_size=1, param=[{"lr_mult": 0}], include={"phase": "TRAIN"})
    layer = b.build().layers[0]
    assert layer.params.param[0].lr_mult == 0
    assert layer.params.include[0].phase == "TRAIN"
    assert layer.get(ConvolutionParameter).num_output == 1


@pytest.mark.parametrize(
    ("type_", "fields", "error"),
    [
        ("Convolution", {"num_outputs": 4}, "unknown field 'num_outputs'; did you mean 'num_output'"),
        ("Convolution", {"num_output": "4"}, "num_output: expected uint32"),
        ("Convolution", {"num_output": 4}, r"layer 'x' \(Convolution\): it needs kernel_size"),
        ("Convolution", {"num_output": 4, "kernel_size": 9}, r"layer 'x' \(Convolution\): its top would have size"),
        ("ReLU", {"kernel_size": 3}, r"layer 'x' \(ReLU\): unknown field 'kernel_size'"),
        ("Pooling", {"pool": "MEAN", "kernel_size": 2}, r"PoolingParameter\.pool: expected one of MAX, AVE"),
        ("Silence", {}, r"layer 'x' \(Silence\): it takes 0 tops, not 1"),
    ],
)
def test_errors_name_the_layer(net: Started, type_: str, fields: dict[str, Any], error: str) -> None:
    b, x = net
    with pytest.raises(NetError, match=error):
        b.add(type_, "x", x, **fields)
    assert b.build().layers == (), "a layer that was refused is not in the net"
    assert b.add("ReLU", "x", x).blob == "x", "and its name is free"


def test_bottoms_of_different_shapes_are_an_error(net: Started) -> None:
    b, x = net
    y = b.add("Pooling", "pool", x, pool="MAX", kernel_size=2, stride=2)
    with pytest.raises(NetError, match=r"layer 'sum' \(Eltwise\): bottoms differ, 2x3x8x8 and 2x3x4x4"):
        b.add("Eltwise", "sum", x, y)


def test_an_unknown_type_is_an_error_with_the_most_similar_name(net: Started) -> None:
    b, x = net
    with pytest.raises(UnsupportedError, match=r"layer 'x' \(Convolutoin\): .*did you mean 'Convolution'"):
        b.add("Convolutoin", "x", x)


def test_a_name_cannot_be_used_twice(net: Started) -> None:
    b, x = net
    b.add("ReLU", "relu", x)
    with pytest.raises(NetError, match="a layer of this name already exists; weights are found by layer name"):
        b.add("ReLU", "relu", x)
    with pytest.raises(NetError, match="its top 'relu' is a blob that already exists"):
        b.add_many("ReLU", "other", x, tops=("relu",))
    with pytest.raises(NetError, match="input 'data': a blob of this name already exists"):
        b.input("data", (1,))
    with pytest.raises(NetError, match="its top 'data' is a blob"):
        b.add("ReLU", "data", x)


def test_a_value_overwritten_in_place_cannot_be_a_bottom(net: Started) -> None:
    b, x = net
    b.add("ReLU", "relu", x, in_place=True)
    with pytest.raises(
        NetError, match="bottom 'data' was overwritten in place by layer 'relu'; use the top of that layer"
    ):
        b.add("TanH", "tanh", x)


def test_a_value_of_another_net_cannot_be_a_bottom(net: Started) -> None:
    with pytest.raises(NetError, match="bottom 'stray' was overwritten in place by layer 'another net'"):
        net[0].add("ReLU", "relu", Value("stray", 0, (1, 2)))


def test_a_net_can_have_parameters() -> None:
    assert Builder("n", NetParameter(force_backward=True)).build().params.force_backward


def test_a_built_net_does_not_change(net: Started) -> None:
    b, x = net
    first = b.build()
    b.add("ReLU", "relu", x)
    assert (len(first.layers), len(b.build().layers)) == (0, 1)
