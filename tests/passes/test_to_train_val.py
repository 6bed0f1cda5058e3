"""Deploy net to train_val: all learned layers get fillers other than zero."""

from __future__ import annotations

import numpy as np
import pytest

from prototxt_gen.analysis import analyse
from prototxt_gen.common.errors import NetError
from prototxt_gen.ir import Net
from prototxt_gen.layers.recurrent._recurrent_base import RecurrentParameter
from prototxt_gen.net.lowering_checks import analyse_for_conversion
from prototxt_gen.net.prototxt_reader import parse_net
from prototxt_gen.net.render import net_text
from prototxt_gen.passes.to_train_val import DataOptions, to_train_val, training_shapes
from prototxt_gen.runtime.torch_net import TorchNet
from prototxt_gen.train.learned_parameters import fill_blobs

LEARNING = {
    "Convolution": "convolution_param { num_output: 4 kernel_size: 3 }",
    "ConvolutionDepthwise": "convolution_param { num_output: 4 kernel_size: 3 }",
    "Deconvolution": "convolution_param { num_output: 3 kernel_size: 3 }",
    "InnerProduct": "inner_product_param { num_output: 5 }",
    "PReLU": "",
}


def trained(layer: str) -> Net:
    return to_train_val(
        parse_net(
            'input: "data" input_shape { dim: 1 dim: 4 dim: 8 dim: 8 }'
            f'layer {{ name: "it" bottom: "data" top: "it" {layer} }}'
            'layer { name: "ip" type: "InnerProduct" bottom: "it" top: "ip" inner_product_param { num_output: 2 } }'
            'layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }'
        ),
        DataOptions(kind="input", crop=8, channels=4, batch=1),
    ).at("TRAIN")


def weight(net: Net) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    made = TorchNet(analyse_for_conversion(net))
    fill_blobs(made, seed=1)
    found = made.dump_weights().of("it")
    return np.asarray(next(iter(found.values())))


@pytest.mark.parametrize("type_", LEARNING)
def test_weights_do_not_start_at_zero(type_: str) -> None:
    found = weight(trained(f'type: "{type_}" {LEARNING[type_]}'))
    assert np.abs(found).mean() > 0.01


@pytest.mark.parametrize("recurrent", ["LSTM", "RNN"])
def test_recurrent_weights_do_not_start_at_zero(recurrent: str) -> None:
    net = parse_net(
        'input: "data" input_shape { dim: 3 dim: 2 dim: 4 dim: 1 }'
        'layer { name: "sums" type: "Reduction" bottom: "data" top: "sums" reduction_param { axis: 2 } }'
        'layer { name: "cont" type: "Threshold" bottom: "sums" top: "cont" }'
        f'layer {{ name: "it" type: "{recurrent}" bottom: "data" bottom: "cont" top: "it" '
        "recurrent_param { num_output: 6 } }"
        'layer { name: "prob" type: "Softmax" bottom: "it" top: "prob" softmax_param { axis: 2 } }'
    )
    made = to_train_val(net, DataOptions(kind="input", crop=4, channels=4, batch=3))
    found = next(layer for layer in made.layers if layer.name == "it").get(RecurrentParameter)
    assert found.weight_filler.type == "xavier"


def test_an_upsampling_deconvolution_gets_a_bilinear_filler() -> None:
    own = "convolution_param { num_output: 4 group: 4 kernel_size: 4 stride: 2 pad: 1 bias_term: false }"
    found = weight(trained(f'type: "Deconvolution" {own}'))
    assert found.shape == (4, 1, 4, 4)
    assert np.allclose(found, found[:1])
    assert np.allclose(found.sum((2, 3)), 4)  # stride 2 in both directions: each output is a mean


def test_the_axis_of_the_softmax_stays_in_loss_and_accuracy() -> None:
    net = parse_net(
        'input: "data" input_shape { dim: 3 dim: 2 dim: 4 }'
        'layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param '
        "{ num_output: 9 axis: 2 } }"
        'layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" softmax_param { axis: 2 } }'
    )
    made = to_train_val(net, DataOptions(kind="hdf5", batch=3, test_batch=3))
    shapes = training_shapes(net, DataOptions(kind="hdf5", batch=3, test_batch=3))
    assert shapes["TRAIN"] == {"data": (3, 2, 4), "label": (3, 2)}
    analysis = analyse(made.at("TEST"), shapes["TEST"])
    assert analysis.complete
    text = net_text(made)
    assert text.count("axis: 2") == 4  # ip, loss, and accuracies of 1 and 5


SEGMENTATION = """input: "image" input_shape { dim: 1 dim: 3 dim: 8 dim: 8 }
layer { name: "loss" type: "Convolution" bottom: "image" top: "data"
  convolution_param { num_output: 2 kernel_size: 1 } }
layer { name: "label" type: "Softmax" bottom: "data" top: "label" }"""


@pytest.mark.parametrize("kind", ["hdf5", "input"])
def test_labels_have_the_axes_that_the_loss_needs(kind: str) -> None:
    options = DataOptions(kind=kind, crop=8, batch=4)
    made, shapes = to_train_val(parse_net(SEGMENTATION), options), training_shapes(parse_net(SEGMENTATION), options)
    assert shapes["TRAIN"] == {"image": (4, 3, 8, 8), "label": (4, 8, 8)}
    assert analyse(made.at("TRAIN"), shapes["TRAIN"] if kind == "hdf5" else None).complete
    assert [one.name for one in made.at("TRAIN").layers] == ["data", "loss", "loss2"]


def test_data_for_images_has_no_label_for_each_pixel() -> None:
    with pytest.raises(NetError, match=r"layer 'label' \(Softmax\): .* labels 4x8x8.*--data-layer hdf5 or input"):
        to_train_val(parse_net(SEGMENTATION), DataOptions(crop=8, batch=4))


def test_a_train_val_that_would_not_run_is_an_error() -> None:
    net = parse_net(
        'input: "data" input_shape { dim: 1 dim: 3 dim: 8 dim: 8 }'
        'layer { name: "r" type: "Reshape" bottom: "data" top: "r" reshape_param { shape { dim: 1 dim: -1 } } }'
        'layer { name: "prob" type: "Softmax" bottom: "r" top: "prob" }'
    )
    with pytest.raises(NetError, match=r"the train_val would not run:\s+layer 'loss' \(SoftmaxWithLoss\)"):
        to_train_val(net, DataOptions(crop=8, batch=4))
