"""Misspelt names are told apart from the similar names of forks."""

from __future__ import annotations

import pytest

from prototxt_gen import layers
from prototxt_gen.common.misspellings import misspelt_field, misspelt_type
from prototxt_gen.schema.caffe_proto import SolverParameter
from prototxt_gen.schema.message import LAYER_FIELDS, Message


@pytest.mark.parametrize(("name", "meant"), [
    ("Convolutoin", "Convolution"), ("Convoltion", "Convolution"), ("convolution", "Convolution"), ("Relu", "ReLU"),
    ("SoftMaxWithLoss", "SoftmaxWithLoss"), ("InnerProdukt", "InnerProduct"), ("Batchnorm", "BatchNorm"),
    ("CReLU", ""), ("Convolution3D", ""), ("Pooling3D", ""), ("SmoothL2Loss", ""), ("GELU", ""), ("Splice", ""),
    ("ConvolutionLocal", ""), ("Data2", ""),
])  # fmt: skip
def test_layer_type(name: str, meant: str) -> None:
    types = [type_ for type_ in layers.all_layer_types() if type_ != name]
    assert misspelt_type(name, types) == meant


@pytest.mark.parametrize(("name", "meant"), [
    ("weight_decy", "weight_decay"), ("weigth_decay", "weight_decay"), ("max_itr", "max_iter"), ("gama", "gamma"),
    ("step_size", "stepsize"), ("momentun", "momentum"), ("lr_plicy", "lr_policy"), ("test_intreval", "test_interval"),
    ("momentum3", ""), ("min_lr", ""), ("plateau_winsize", ""), ("test_iters", ""), ("bx", ""),
])  # fmt: skip
def test_solver_field(name: str, meant: str) -> None:
    assert misspelt_field(name, SolverParameter.fields) == meant


def test_different_fields_of_one_message_are_no_misspellings_of_each_other() -> None:
    """`kernel_h` and `kernel_w`, `pad_t` and `pad_b`, `min_size` and `max_size`: a fork may add one beside another."""
    messages: list[type[Message]] = [SolverParameter]
    for message in messages:
        for name in message.fields:
            assert not misspelt_field(name, [other for other in message.fields if other != name])
        inner = [field.message for field in message.fields.values() if field.message is not None]
        messages += [each for each in inner if each not in messages]
    names = {name.replace("_", "") for name in LAYER_FIELDS}
    for name in names:
        assert not misspelt_field(name, names - {name})
