"""Deploy net to train_val: adds data layers of both phases, fillers, learning rate multipliers, loss and accuracy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from prototxt_gen import layers
from prototxt_gen.common.errors import NetError, one_of
from prototxt_gen.ir import Layer, Net, Value
from prototxt_gen.layers.activation.scale import ScaleParameter
from prototxt_gen.layers.common.embed import EmbedParameter
from prototxt_gen.layers.common.inner_product import InnerProductParameter
from prototxt_gen.layers.normalization.batch_norm import BatchNormParameter
from prototxt_gen.layers.normalization.bn import BNParameter
from prototxt_gen.layers.recurrent._recurrent_base import RecurrentParameter
from prototxt_gen.layers.vision.convolution import ConvolutionParameter
from prototxt_gen.schema.caffe_proto import NOT_LEARNED, FillerParameter, LayerParameter, NetStateRule, ParamSpec
from prototxt_gen.schema.message import Message

DATA_KINDS = ("lmdb", "hdf5", "image-list", "python", "input")
IMAGENET_MEAN = (104.0, 117.0, 123.0)
"""Mean of ImageNet per channel (blue, green, red), which Caffe's ImageNet models subtract."""
_LEARNED_SPEC = ParamSpec(lr_mult=1, decay_mult=1)
_BIAS_SPEC = ParamSpec(lr_mult=1, decay_mult=0)
FilledParameter = TypeVar("FilledParameter", ConvolutionParameter, InnerProductParameter, EmbedParameter)


@dataclass(frozen=True)
class DataOptions:
    """Source of the images, and their preprocessing: the options for the data layers of a train_val.

    `kind`: "lmdb" (records of type Datum), "hdf5", "image-list" (list of image files), "python" (the augmenting Python
    layer of prototxt-gen) or "input" (Input layers that the caller fills). `train` and `test` are the paths of the
    data, `batch` and `test_batch` the batch sizes. `crop` is the side of the crop, `resize` that of the image before,
    in pixels. `mean` is one number per channel (B, G, R) or one for all; `scale` is applied after subtracting the mean.
    Raises NetError for an unknown kind, or a batch or crop below 1.
    """

    kind: str = "lmdb"
    train: str = "train_lmdb"
    test: str = "test_lmdb"
    batch: int = 32
    test_batch: int = 25
    crop: int = 224
    resize: int = 0
    mirror: bool = True
    mean: tuple[float, ...] = IMAGENET_MEAN
    scale: float = 1.0
    channels: int = 3
    pad: int = 0
    """Zero padding in pixels before the random crop of the Python layer; if 0, it crops at a random scale instead."""

    def __post_init__(self) -> None:
        one_of("data", self.kind, DATA_KINDS)
        if min(self.batch, self.test_batch, self.crop) < 1:
            raise NetError("batch and crop must be at least 1")

    def layer(self, phase: str) -> Layer:
        """Return the data layer of one phase, with tops `data` and `label`."""
        type_, fields = getattr(self, f"_{self.kind.replace('-', '_')}")(phase)
        tops = (Value("data"), Value("label"))
        rule = [NetStateRule(phase=phase)]
        return Layer("data", type_, (), tops, LayerParameter(include=rule, **fields))

    def _batch_size(self, phase: str) -> int:
        return self.batch if phase == "TRAIN" else self.test_batch

    def _source(self, phase: str) -> str:
        return self.train if phase == "TRAIN" else self.test

    def _transform(self, phase: str) -> dict[str, Any]:
        fields: dict[str, Any] = {"mirror": self.mirror and phase == "TRAIN"}
        if self.crop:
            fields["crop_size"] = self.crop
        if self.mean:
            fields["mean_value"] = self.mean
        return fields | ({"scale": self.scale} if self.scale != 1 else {})

    def _lmdb(self, phase: str) -> tuple[str, dict[str, Any]]:
        params = {"source": self._source(phase), "batch_size": self._batch_size(phase), "backend": "LMDB"}
        return "Data", {"transform_param": self._transform(phase), "data_param": params}

    def _hdf5(self, phase: str) -> tuple[str, dict[str, Any]]:
        """Return type and fields of an HDF5Data layer, which has no transform_param: the files hold prepared images."""
        params = {"source": self._source(phase), "batch_size": self._batch_size(phase), "shuffle": phase == "TRAIN"}
        return "HDF5Data", {"hdf5_data_param": params}

    def _image_list(self, phase: str) -> tuple[str, dict[str, Any]]:
        params: dict[str, Any] = {"source": self._source(phase), "batch_size": self._batch_size(phase)}
        params["shuffle"] = phase == "TRAIN"
        if self.resize:
            params |= {"new_height": self.resize, "new_width": self.resize}
        return "ImageData", {
            "transform_param": self._transform(phase),
            "image_data_param": params | {"is_color": self.channels == 3},
        }

    def _python(self, phase: str) -> tuple[str, dict[str, Any]]:
        import json

        settings = {
            "source": self._source(phase),
            "batch_size": self._batch_size(phase),
            "color": self.channels == 3,
            "augment": self._augment(),
        }
        module = "prototxt_gen.data.caffe_layer"
        params = {"module": module, "layer": "AugmentedData", "param_str": json.dumps(settings)}
        return "Python", {"python_param": params}

    def _augment(self) -> dict[str, Any]:
        """Return the settings of `data.augmentation.Augment`: the paper's for CIFAR if `pad` is set, else ImageNet."""
        preset = "cifar" if self.pad else "imagenet"
        settings: dict[str, Any] = {"preset": preset, "crop": self.crop, "mirror": self.mirror}
        if self.pad:
            settings["pad"] = self.pad
        return settings | {"mean": list(self.mean), "scale": [self.scale]}

    def _input(self, phase: str) -> tuple[str, dict[str, Any]]:
        size = self._batch_size(phase)
        shapes = ({"dim": (size, self.channels, self.crop, self.crop)}, {"dim": size})
        return "Input", {"input_param": {"shape": shapes}}


@dataclass(frozen=True)
class FillerOptions:
    """Filler types of the weights, and whether the statistics of batch normalisation stay frozen."""

    convolution: str = "msra"
    inner_product: str = "xavier"
    freeze_bn: bool = False


def to_train_val(net: Net, data: DataOptions, fillers: FillerOptions | None = None, freeze_bn: bool = False) -> Net:
    """Return the train_val of a deploy net.

    Its input becomes data layers; the Softmax at the end becomes SoftmaxWithLoss, with Accuracy (top-1 and top-5) in
    the TEST phase. Layers get the fillers and multipliers that they lack. Batch normalisation learns unless
    `freeze_bn`. Raises NetError unless the net has one input and ends in a Softmax.
    """
    softmax = _last_softmax(net)
    fillers = replace(fillers or FillerOptions(), freeze_bn=freeze_bn)
    body = [_trainable(layer, fillers) for layer in net.layers if layer is not softmax and not _is_data_layer(layer)]
    input_blob = _only_input(net)
    renamed = [_with_blob_renamed(layer, input_blob, "data") for layer in body]
    empty = Net(net.name, (), (), net.params, net.source)
    return empty.relinked([data.layer("TRAIN"), data.layer("TEST"), *renamed, *_loss_and_accuracy(net, softmax)])


def _is_data_layer(layer: Layer) -> bool:
    layer_type = layers.find_layer_type(layer.type)
    return layer_type is not None and layer_type.data


def _only_input(net: Net) -> str:
    inputs = [value.blob for value in net.inputs]
    inputs += [value.blob for layer in net.layers if _is_data_layer(layer) for value in layer.tops]
    if len(inputs) != 1:
        names = ", ".join(inputs)
        raise NetError(f"{net.name}: it has {len(inputs)} inputs ({names}); a deploy net with one input is needed")
    return inputs[0]


def _last_softmax(net: Net) -> Layer:
    ends = set(net.outputs)
    for layer in reversed(net.layers):
        if layer.type == "Softmax" and ends.issuperset(layer.tops):
            return layer
    raise NetError(f"{net.name}: it does not end in a Softmax, so the loss for training is unknown")


def _with_blob_renamed(layer: Layer, old: str, new: str) -> Layer:
    if old == new:
        return layer
    bottoms = tuple(Value(new) if v.blob == old else v for v in layer.bottoms)
    tops = tuple(Value(new) if v.blob == old else v for v in layer.tops)
    return Layer(layer.name, layer.type, bottoms, tops, layer.params, layer.line)


def _loss_and_accuracy(net: Net, softmax: Layer) -> Iterator[Layer]:
    scores = (softmax.bottoms[0], Value("label"))
    yield Layer("loss", "SoftmaxWithLoss", scores, (Value("loss"),))
    for top_k in (1, 5):
        if top_k == 1 or _classes(net, softmax) > top_k:
            rule = [NetStateRule(phase="TEST")]
            params = LayerParameter(include=rule, accuracy_param={"top_k": top_k})
            yield Layer(f"accuracy/top-{top_k}", "Accuracy", scores, (Value(f"accuracy/top-{top_k}"),), params)


def _classes(net: Net, softmax: Layer) -> int:
    from prototxt_gen.analysis import analyse

    shape = softmax.bottoms[0].shape or analyse(net).shapes.get(softmax.bottoms[0])
    return shape[1] if shape and len(shape) > 1 else 1000


def _trainable(layer: Layer, fillers: FillerOptions) -> Layer:
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
