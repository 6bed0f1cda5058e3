"""Dialects: field numbers of each fork, fields that forks lack, and use beside an imported pycaffe."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from prototxt_gen.common.errors import PrototxtGenError, UnsupportedError
from prototxt_gen.net.dialect_fields import fields_missing_in_dialect
from prototxt_gen.net.prototxt_reader import parse_net
from prototxt_gen.net.to_protobuf import encoded_params, protobuf_classes, to_protobuf
from prototxt_gen.schema.dialect import DIALECTS, Dialect, find_dialect
from prototxt_gen.schema.message import LAYER_FIELDS
from tests.support.caffe_support import caffe_or_skip

EVERY = [pytest.param(each, id=name) for name, each in DIALECTS.items()]
NUMBERS = {
    "bn_param": {"buptwangfei": 148, "happynear": 200, "yjxiong": 137, "pspnet": 152, "brocolli": 1111},
    "interp_param": {"buptwangfei": 147, "pspnet": 143, "prototxt-gen": 147},
    "swish_param": {"bvlc": 147, "prototxt-gen": 1147},
    "clip_param": {"bvlc": 148, "prototxt-gen": 1148},
    "permute_param": {"ssd": 202, "happynear": 224, "brocolli": 202},
    "scale_param": {"bvlc": 142, "yjxiong": 160, "pspnet": 142},
    "crop_param": {"bvlc": 144, "buptwangfei": 144, "happynear": 144, "ssd": 144},
    "roi_pooling_param": {"happynear": 204, "yjxiong": 150},
}
"""From the caffe.proto of each fork; a fork that is not named for a field may or may not have it."""
LACKING = {
    "bvlc": ("bn_param", "interp_param", "permute_param", "reverse_param", "upsample_param", "flip_param"),
    "ssd": ("bn_param", "swish_param", "flip_param"),
    "buptwangfei": ("swish_param", "clip_param", "permute_param", "pad_param"),
    "yjxiong": ("batch_norm_param", "input_param", "tile_param"),
    "pspnet": ("input_param", "crop_param", "relu6_param"),
    "brocolli": ("interp_param", "swish_param", "region_loss_param"),
}
NET = """
input: "data" input_shape { dim: 1 dim: 3 dim: 9 dim: 9 }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 dilation: 2 weight_filler { type: "msra" } } }
layer { name: "bn" type: "BN" bottom: "conv" top: "bn" bn_param { momentum: 0.5 frozen: true } }
"""


@pytest.mark.parametrize("fork", EVERY)
def test_field_numbers_of_each_fork(fork: Dialect) -> None:
    fields = protobuf_classes(fork)["LayerParameter"].DESCRIPTOR.fields_by_name
    for name, by_fork in NUMBERS.items():
        if fork.name in by_fork:
            assert fork.number(name) == fields[name].number == by_fork[fork.name]
    for name in LACKING.get(fork.name, ()):
        assert fork.number(name) is None
        assert name not in fields


def test_a_field_of_no_fork_is_only_in_text() -> None:
    """A layer type may have parameters of a fork without a dialect; they leak into none of the others."""
    every = set(protobuf_classes(None)["LayerParameter"].DESCRIPTOR.fields_by_name)
    listed = {name for each in DIALECTS.values() for name in each.table["LayerParameter"]}
    assert {"reverse_param", "max_unpool_param", "layer_norm_param"} <= set(LAYER_FIELDS) <= every
    assert {"reverse_param", "layer_norm_param"} <= every - listed
    for each in DIALECTS.values():
        has = set(protobuf_classes(each)["LayerParameter"].DESCRIPTOR.fields_by_name) - {
            "name",
            "type",
            "bottom",
            "top",
        }
        assert has == {name for name in LAYER_FIELDS if each.number(name) is not None}


@pytest.mark.parametrize("fork", EVERY)
def test_every_table_has_all_messages(fork: Dialect) -> None:
    for name, fields in fork.table.items():
        numbers = [place.number for place in fields.values()]
        assert len(set(numbers)) == len(numbers), f"{name} gives a number twice"
        assert all(place.message in fork.table for place in fields.values() if place.message), name


def test_fields_of_inner_messages_have_the_numbers_of_the_fork() -> None:
    """yjxiong/caffe declares dilation, dilation_h, dilation_w as 16, 17, 18, where BVLC has axis, …, dilation."""
    net = parse_net(NET.replace("BN", "ReLU").replace("bn_param { momentum: 0.5 frozen: true }", ""))
    assert protobuf_classes(DIALECTS["bvlc"])["ConvolutionParameter"].DESCRIPTOR.fields_by_name["dilation"].number == 18
    made = to_protobuf(net, DIALECTS["yjxiong"]).layer[0].convolution_param
    assert made.DESCRIPTOR.fields_by_name["dilation"].number == 16
    assert "axis" not in made.DESCRIPTOR.fields_by_name
    assert list(made.dilation) == [2]


@pytest.mark.parametrize("name", ["buptwangfei", "happynear", "pspnet", "yjxiong", "brocolli", "prototxt-gen"])
def test_a_net_is_restored_from_the_binary_of_each_fork(name: str) -> None:
    made = to_protobuf(parse_net(NET), DIALECTS[name])
    again = protobuf_classes(DIALECTS[name])["NetParameter"].FromString(made.SerializeToString())
    assert again == made
    assert again.layer[1].bn_param.frozen


def test_the_binary_of_another_fork_is_misread() -> None:
    """What the dialects are for: BVLC takes the authors' bn_param for clip_param, without an error."""
    made = to_protobuf(parse_net(NET), DIALECTS["buptwangfei"]).SerializeToString()
    layer = protobuf_classes(DIALECTS["bvlc"])["NetParameter"].FromString(made).layer[1]
    assert layer.HasField("clip_param")
    assert to_protobuf(parse_net(NET), DIALECTS["pspnet"]).SerializeToString() != made


def test_fields_that_a_fork_lacks_are_listed_and_refused() -> None:
    net = parse_net(
        NET + 'layer { name: "p" type: "Pooling" bottom: "bn" top: "p" pooling_param { ceil_mode: false } }'
    )
    assert list(fields_missing_in_dialect(DIALECTS["bvlc"], net)) == [
        ("bn", "bn_param"),
        ("p", "pooling_param.ceil_mode"),
    ]
    assert list(fields_missing_in_dialect(DIALECTS["brocolli"], net)) == []
    with pytest.raises(UnsupportedError, match=r"BVLC/caffe has no field bn_param, pooling_param\.ceil_mode"):
        to_protobuf(net, DIALECTS["bvlc"])


def test_encoded_params_have_the_numbers_of_the_fork() -> None:
    bn = parse_net(NET).layers[1]
    assert {name: set(encoded_params(bn, each)) for name, each in DIALECTS.items()} == {
        "bvlc": set(),
        "ssd": set(),
        "buptwangfei": {148},
        "happynear": {200},
        "yjxiong": {137},
        "pspnet": {152},
        "brocolli": {1111},
        "prototxt-gen": {148},
    }


def test_an_unknown_dialect_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(PrototxtGenError, match="did you mean 'happynear'"):
        find_dialect("hapynear")


@pytest.mark.caffe
def test_the_table_of_the_installed_caffe_equals_its_caffe_proto() -> None:
    caffe_or_skip()
    from caffe.proto import caffe_pb2

    fork = DIALECTS["prototxt-gen"]
    for root in (caffe_pb2.NetParameter.DESCRIPTOR, caffe_pb2.SolverParameter.DESCRIPTOR):
        compare(fork, root, set())


def compare(fork: Dialect, theirs: Any, seen: set[str]) -> None:
    """Compare a table with a message's descriptor, and with all messages below it."""
    old = {"layers", "blobs"}  # V1 layers, and arrays
    found = {f.name: (f.number, f.message_type.name if f.message_type else "") for f in theirs.fields}
    assert {n: v for n, v in found.items() if n not in old} == dict(fork.table[theirs.name]), theirs.name
    for field in theirs.fields:
        if field.message_type is not None and field.name not in old and field.message_type.name not in seen:
            seen.add(field.message_type.name)
            compare(fork, field.message_type, seen)


@pytest.mark.caffe
@pytest.mark.parametrize("order", ["caffe first", "caffe last"])
def test_all_dialects_work_beside_pycaffe_in_one_process(order: str) -> None:
    caffe_or_skip()
    ours = "from prototxt_gen.schema.dialect import DIALECTS as D; "
    ours += "from prototxt_gen.net.to_protobuf import protobuf_classes; "
    ours += "[protobuf_classes(d)['NetParameter'](name='n') for d in (None, *D.values())]; "
    theirs = "import caffe; from caffe.proto import caffe_pb2; caffe_pb2.NetParameter(name='n'); "
    code = theirs + ours if order == "caffe first" else ours + theirs
    code += "assert caffe_pb2.NetParameter is not protobuf_classes(D['prototxt-gen'])['NetParameter']; print('both')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "both"), done.stderr
