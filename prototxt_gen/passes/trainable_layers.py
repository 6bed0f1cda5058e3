"""Layers made trainable: fillers and learning rate multipliers, where a deploy net has none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from prototxt_gen.ir import Layer
from prototxt_gen.layers.activation.scale import ScaleParameter
from prototxt_gen.layers.common.embed import EmbedParameter
from prototxt_gen.layers.common.inner_product import InnerProductParameter
from prototxt_gen.layers.normalization.batch_norm import BatchNormParameter
from prototxt_gen.layers.normalization.bn import BNParameter
from prototxt_gen.layers.recurrent._recurrent_base import RecurrentParameter
from prototxt_gen.layers.vision.convolution import ConvolutionParameter
from prototxt_gen.schema.caffe_proto import NOT_LEARNED, FillerParameter, ParamSpec
from prototxt_gen.schema.message import Message

_LEARNED_SPEC = ParamSpec(lr_mult=1, decay_mult=1)
_BIAS_SPEC = ParamSpec(lr_mult=1, decay_mult=0)
FilledParameter = TypeVar("FilledParameter", ConvolutionParameter, InnerProductParameter, EmbedParameter)


@dataclass(frozen=True)
class FillerOptions:
    """Filler types of the weights, and whether the statistics of batch normalisation stay frozen."""

    convolution: str = "msra"
    inner_product: str = "xavier"
    freeze_bn: bool = False


def trainable(layer: Layer, fillers: FillerOptions) -> Layer:
    """Return the layer with the fillers and multipliers that it lacks."""
    change = _TRAINABLE.get(layer.type)
    return layer if change is None else change(layer, fillers)


def _with_parameters(layer: Layer, type_params: Message, specs: tuple[ParamSpec, ...]) -> Layer:
    """Return the layer with these parameters of its type, and with the `param` of `specs` that it lacks."""
    params = layer.params.replace(**{type_params.field: type_params if type_params else None})
    if len(params.param) < len(specs):
        params = params.replace(param=(*params.param, *specs[len(params.param) :]))
    return Layer(layer.name, layer.type, layer.bottoms, layer.tops, params, layer.line)


def _with_fillers(params: FilledParameter, weight_filler: str) -> FilledParameter:
    """Return the parameters with the fillers of weight and bias that they lack."""
    if not params.has("weight_filler"):
        params = params.replace(weight_filler=FillerParameter(type=weight_filler))
    if params.bias_term and not params.has("bias_filler"):
        params = params.replace(bias_filler=FillerParameter(type="constant", value=0))
    return params


def _convolution(layer: Layer, fillers: FillerOptions) -> Layer:
    params = _with_fillers(layer.get(ConvolutionParameter), fillers.convolution)
    return _with_parameters(layer, params, (_LEARNED_SPEC, _BIAS_SPEC)[: 1 + params.bias_term])


def _deconvolution(layer: Layer, fillers: FillerOptions) -> Layer:
    """Return the layer with fillers: bilinear for an upsampling, a Deconvolution with one filter for each channel."""
    params = layer.get(ConvolutionParameter)
    square = len(params.kernel_size) == 1 or params.kernel_h == params.kernel_w
    upsamples = square and params.num_output == params.group > 1
    params = _with_fillers(params, "bilinear" if upsamples else fillers.convolution)
    return _with_parameters(layer, params, (_LEARNED_SPEC, _BIAS_SPEC)[: 1 + params.bias_term])


def _embed(layer: Layer, fillers: FillerOptions) -> Layer:
    params = _with_fillers(layer.get(EmbedParameter), fillers.inner_product)
    return _with_parameters(layer, params, (_LEARNED_SPEC, _BIAS_SPEC)[: 1 + params.bias_term])


def _recurrent(layer: Layer, fillers: FillerOptions) -> Layer:
    params = layer.get(RecurrentParameter)
    if not params.has("weight_filler"):
        params = params.replace(weight_filler=FillerParameter(type=fillers.inner_product))
    return _with_parameters(layer, params, ())


def _inner_product(layer: Layer, fillers: FillerOptions) -> Layer:
    params = _with_fillers(layer.get(InnerProductParameter), fillers.inner_product)
    return _with_parameters(layer, params, (_LEARNED_SPEC, _BIAS_SPEC)[: 1 + params.bias_term])


def _bn(layer: Layer, fillers: FillerOptions) -> Layer:
    """Return the layer with learned slope and bias, but not statistics, as the author of the paper advises."""
    params = layer.get(BNParameter).replace(slope_filler={"value": 1}, bias_filler={"value": 0})
    if fillers.freeze_bn:
        return _with_parameters(layer, params, (NOT_LEARNED,) * 4)
    params = params.replace(frozen=None)
    return _with_parameters(layer, params, (_LEARNED_SPEC, _LEARNED_SPEC, NOT_LEARNED, NOT_LEARNED))


def _batch_norm(layer: Layer, fillers: FillerOptions) -> Layer:
    params = layer.get(BatchNormParameter)
    return _with_parameters(
        layer, params if fillers.freeze_bn else params.replace(use_global_stats=None), (NOT_LEARNED,) * 3
    )


def _scale(layer: Layer, fillers: FillerOptions) -> Layer:
    params = layer.get(ScaleParameter)
    return _with_parameters(layer, params, (_LEARNED_SPEC, _LEARNED_SPEC)[: 1 + params.bias_term])


_TRAINABLE = {
    **dict.fromkeys(
        ("Convolution", "ConvolutionDepthwise", "ConvolutionDepthWise", "DepthwiseConvolution"), _convolution
    ),
    "Deconvolution": _deconvolution,
    "Embed": _embed,
    "RNN": _recurrent,
    "LSTM": _recurrent,
    "InnerProduct": _inner_product,
    "BN": _bn,
    "BatchNorm": _batch_norm,
    "Scale": _scale,
}
