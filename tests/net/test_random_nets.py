"""Random nets: written text is read again as the same net, protobuf agrees, and sizes are those of PyTorch."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from google.protobuf import text_format
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from prototxt_gen.analysis import analyse, top_shapes
from prototxt_gen.common.errors import NetError
from prototxt_gen.ir import Net, Shape
from prototxt_gen.net.builder import Builder
from prototxt_gen.net.dialect_fields import fields_missing_in_dialect
from prototxt_gen.net.prototxt_reader import parse_net
from prototxt_gen.net.render import net_text
from prototxt_gen.net.to_protobuf import encoded_params, protobuf_classes, to_protobuf
from prototxt_gen.schema.dialect import DIALECTS
from tests.support.random_nets import built_nets

pytestmark = pytest.mark.fuzz

SLOW = settings(max_examples=60, deadline=None)
QUICK = settings(max_examples=200, deadline=None)


def uncommented(text: str) -> str:
    return re.sub(r"(?m)^# .*\n", "", text)


@SLOW
@given(built_nets())
def test_text_of_a_net_that_is_read_again_is_the_same(net: Net) -> None:
    text = net_text(net)
    again = parse_net(text)
    assert again == net
    assert net_text(again) == uncommented(text)
    assert net_text(again, top_shapes(again)) == text


@SLOW
@given(built_nets())
def test_real_protobuf_parses_the_same_net(net: Net) -> None:
    read = text_format.Parse(net_text(net), protobuf_classes(None)["NetParameter"]())
    assert read == to_protobuf(net)
    again = parse_net(text_format.MessageToString(read))  # with floats in fewer digits
    assert to_protobuf(again) == read


@SLOW
@given(built_nets())
def test_builder_and_analysis_infer_the_same_shapes(net: Net) -> None:
    analysis = analyse(parse_net(net_text(net)))
    assert analysis.complete, [str(row.error) for row in analysis.rows if row.error]
    assert [row.tops for row in analysis.rows] == [tuple(top.shape for top in layer.tops) for layer in net.layers]
    assert analysis.parameters >= 0 and analysis.activation_bytes >= 0


@SLOW
@given(built_nets(), st.sampled_from(sorted(DIALECTS)))
def test_every_dialect_encodes_its_fields_and_refuses_others(net: Net, name: str) -> None:
    fork = DIALECTS[name]
    unknown = list(fields_missing_in_dialect(fork, net))
    for layer in net.layers:
        for number, data in encoded_params(layer, fork).items():
            field = protobuf_classes(fork)["LayerParameter"].DESCRIPTOR.fields_by_number[number]
            assert field.name in dict(layer.params.set_fields())
            assert (
                protobuf_classes(fork)[field.message_type.name].FromString(data).SerializeToString(deterministic=True)
                == data
            )
    assume(not unknown)
    made = to_protobuf(net, fork)
    again = type(made).FromString(made.SerializeToString())
    assert text_format.MessageToString(again) == text_format.MessageToString(made)


# Windows.

sizes = st.integers(1, 40)


def shape_of(type_: str, bottom: Shape, **fields: Any) -> Shape:
    b = Builder("one")
    return b.add(type_, "it", b.input("data", bottom), **fields).known_shape


def meta(shape: Shape) -> torch.Tensor:
    return torch.empty(shape, device="meta")


@st.composite
def windows(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """Return kernel, stride, pad and dilation."""
    return draw(st.integers(1, 7)), draw(st.integers(1, 5)), draw(st.integers(0, 4)), draw(st.integers(1, 3))


@QUICK
@given(sizes, sizes, windows())
def test_sizes_of_convolutions_are_those_of_pytorch(height: int, width: int, window: tuple[int, int, int, int]) -> None:
    k, s, p, d = window
    assume(min(height, width) + 2 * p >= d * (k - 1) + 1)
    made = shape_of("Convolution", (1, 2, height, width), num_output=3, kernel_size=k, stride=s, pad=p, dilation=d)
    weight = meta((3, 2, k, k))
    assert made == tuple(torch.nn.functional.conv2d(meta((1, 2, height, width)), weight, None, s, p, d).shape)


@QUICK
@given(sizes, windows(), st.integers(0, 3))
def test_windows_that_do_not_fit_are_refused(size: int, window: tuple[int, int, int, int], more: int) -> None:
    """C++ rounds to 0, so that to Caffe a kernel has one place until it lacks a whole stride."""
    _, s, p, _ = window
    with pytest.raises(NetError, match=r"its top would have size (0x0|-)"):
        shape_of("Convolution", (1, 2, size, size), num_output=3, kernel_size=size + 2 * p + s + more, stride=s, pad=p)


@QUICK
@given(sizes, sizes, windows())
def test_sizes_of_deconvolutions_are_those_of_pytorch(
    height: int, width: int, window: tuple[int, int, int, int]
) -> None:
    k, s, p, d = window
    assume(min(s * (size - 1) + d * (k - 1) + 1 - 2 * p for size in (height, width)) >= 1)
    fields = {"num_output": 3, "kernel_size": k, "stride": s, "pad": p, "dilation": d}
    made = shape_of("Deconvolution", (1, 2, height, width), convolution_param=fields)
    theirs = torch.nn.ConvTranspose2d(2, 3, k, s, p, dilation=d, device="meta")(meta((1, 2, height, width)))
    assert made == tuple(theirs.shape)


@QUICK
@given(sizes, windows(), st.booleans())
def test_sizes_of_poolings_are_those_of_pytorch(size: int, window: tuple[int, int, int, int], floor: bool) -> None:
    """PyTorch drops a last window that starts beyond the bottom; Caffe does so only where there is padding."""
    k, s, p, _ = window
    assume(p <= k // 2 and size + 2 * p >= k)
    mode = {"round_mode": "FLOOR"} if floor else {}
    made = shape_of("Pooling", (1, 2, size, size), pool="MAX", kernel_size=k, stride=s, pad=p, **mode)
    theirs = torch.nn.functional.max_pool2d(meta((1, 2, size, size)), k, s, p, ceil_mode=not floor).shape[2]
    wanted = theirs if p or floor else math.ceil((size - k) / s) + 1
    assert made == (1, 2, wanted, wanted)


@QUICK
@given(st.lists(sizes, min_size=2, max_size=5).map(tuple), windows())
def test_macs_are_weights_times_positions(bottom: Shape, window: tuple[int, int, int, int]) -> None:
    k, s, p, _ = window
    assume(len(bottom) > 2 and min(bottom[2:]) + 2 * p >= k)
    b = Builder("one")
    top = b.add("Convolution", "it", b.input("data", bottom), num_output=3, kernel_size=k, stride=s, pad=p)
    analysis = analyse(b.build())
    places = math.prod(top.known_shape) // 3
    assert analysis.macs == places * (analysis.parameters - 3)
