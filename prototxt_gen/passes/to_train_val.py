"""Deploy net to train_val: data layers of both phases, fillers, learning multipliers, learning BN, loss, accuracy."""

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
"""Blue, green, red: the means Caffe's own ImageNet models subtract."""
_LEARNED = ParamSpec(lr_mult=1, decay_mult=1)
_BIAS = ParamSpec(lr_mult=1, decay_mult=0)
Filled = TypeVar("Filled", ConvolutionParameter, InnerProductParameter, EmbedParameter)


@dataclass(frozen=True)
class Data:
    """Where images come from, and what is done to them.

    `kind`: an LMDB of Datum, HDF5 files, a list of image files, our augmenting Python layer, or bare inputs fed by the
    caller. `mean` is one number per channel (B, G, R) or one for all; `scale` multiplies after the mean is taken off.
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
    """Pixels of zero padding before the random crop in the Python layer; without it, that layer scales and crops."""

    def __post_init__(self) -> None:
        one_of("data", self.kind, DATA_KINDS)
        if min(self.batch, self.test_batch, self.crop) < 1:
            raise NetError("batch and crop must be at least 1")

    def layer(self, phase: str) -> Layer:
        """Return the data layer of a phase, with tops `data` and `label`."""
        type_, fields = getattr(self, f"_{self.kind.replace('-', '_')}")(phase)
        tops = (Value("data"), Value("label"))
        rule = [NetStateRule(phase=phase)]
        return Layer("data", type_, (), tops, LayerParameter(include=rule, **fields))

    def _size(self, phase: str) -> int:
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
        own = {"source": self._source(phase), "batch_size": self._size(phase), "backend": "LMDB"}
        return "Data", {"transform_param": self._transform(phase), "data_param": own}

    def _hdf5(self, phase: str) -> tuple[str, dict[str, Any]]:
        """HDF5Data transforms nothing: the files hold images ready for the net."""
        own = {"source": self._source(phase), "batch_size": self._size(phase), "shuffle": phase == "TRAIN"}
        return "HDF5Data", {"hdf5_data_param": own}

    def _image_list(self, phase: str) -> tuple[str, dict[str, Any]]:
        own: dict[str, Any] = {"source": self._source(phase), "batch_size": self._size(phase)}
        own["shuffle"] = phase == "TRAIN"
        if self.resize:
            own |= {"new_height": self.resize, "new_width": self.resize}
        return "ImageData", {
            "transform_param": self._transform(phase),
            "image_data_param": own | {"is_color": self.channels == 3},
        }

    def _python(self, phase: str) -> tuple[str, dict[str, Any]]:
        import json

        described = {
            "source": self._source(phase),
            "batch_size": self._size(phase),
            "color": self.channels == 3,
            "augment": self._augment(),
        }
        own = {"module": "prototxt_gen.data.caffe_layer", "layer": "AugmentedData", "param_str": json.dumps(described)}
        return "Python", {"python_param": own}

    def _augment(self) -> dict[str, Any]:
        """Return the settings of `data.augmentation.Augment`: those of the paper for ImageNet, or for small images."""
        own: dict[str, Any] = {"preset": "cifar" if self.pad else "imagenet", "crop": self.crop, "mirror": self.mirror}
        if self.pad:
            own["pad"] = self.pad
        return own | {"mean": list(self.mean), "scale": [self.scale]}

    def _input(self, phase: str) -> tuple[str, dict[str, Any]]:
        size = self._size(phase)
        shapes = ({"dim": (size, self.channels, self.crop, self.crop)}, {"dim": size})
        return "Input", {"input_param": {"shape": shapes}}


@dataclass(frozen=True)
class Fillers:
    """How learned blobs start."""

    convolution: str = "msra"
    inner_product: str = "xavier"
    freeze_bn: bool = False


def train_val(net: Net, data: Data, fillers: Fillers | None = None, freeze_bn: bool = False) -> Net:
    """Return the net that trains and tests what this deploy net computes.

    Inputs become data layers; a Softmax at the end becomes SoftmaxWithLoss with Accuracy, top-1 and top-5, in the TEST
    phase; `frozen` and global statistics are lifted, unless `freeze_bn`; every learned layer gets fillers and
    multipliers it lacks.
    """
    softmax = _last_softmax(net)
    fillers = replace(fillers or Fillers(), freeze_bn=freeze_bn)
    body = [_trained(layer, fillers) for layer in net.layers if layer is not softmax and not _makes(layer)]
    first = _first_input(net)
    renamed = [_renamed(layer, first, "data") for layer in body]
    ends = list(_ends(net, softmax))
    made = Net(net.name, (), (), net.params, net.source)
    return made.relinked([data.layer("TRAIN"), data.layer("TEST"), *renamed, *ends])


def _makes(layer: Layer) -> bool:
    layer_type = layers.find_layer_type(layer.type)
    return layer_type is not None and layer_type.data


def _first_input(net: Net) -> str:
    made = [value.blob for value in net.inputs] + [v.blob for layer in net.layers if _makes(layer) for v in layer.tops]
    if len(made) != 1:
        raise NetError(f"{net.name}: it has {len(made)} inputs ({', '.join(made)}); a deploy net with one is needed")
    return made[0]


def _last_softmax(net: Net) -> Layer:
    ends = set(net.outputs)
    for layer in reversed(net.layers):
        if layer.type == "Softmax" and ends.issuperset(layer.tops):
            return layer
    raise NetError(f"{net.name}: it does not end in a Softmax, so there is no telling what loss it is trained by")


def _renamed(layer: Layer, old: str, new: str) -> Layer:
    if old == new:
        return layer
    bottoms = tuple(Value(new) if v.blob == old else v for v in layer.bottoms)
    tops = tuple(Value(new) if v.blob == old else v for v in layer.tops)
    return Layer(layer.name, layer.type, bottoms, tops, layer.params, layer.line)


def _ends(net: Net, softmax: Layer) -> Iterator[Layer]:
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


def _trained(layer: Layer, fillers: Fillers) -> Layer:
    change = _TRAINED.get(layer.type)
    return layer if change is None else change(layer, fillers)


def _with(layer: Layer, own: Message, specs: tuple[ParamSpec, ...]) -> Layer:
    """Return the layer with these parameters, and with these multipliers where it has none of its own."""
    params = layer.params.replace(**{own.field: own if own else None})
    if len(params.param) < len(specs):
        params = params.replace(param=(*params.param, *specs[len(params.param) :]))
    return Layer(layer.name, layer.type, layer.bottoms, layer.tops, params, layer.line)


def _filled(own: Filled, weight: str) -> Filled:
    """Return the parameters with a filler for the weight and, where there is a bias, one for the bias."""
    if not own.has("weight_filler"):
        own = own.replace(weight_filler=FillerParameter(type=weight))
    if own.bias_term and not own.has("bias_filler"):
        own = own.replace(bias_filler=FillerParameter(type="constant", value=0))
    return own


def _convolution(layer: Layer, fillers: Fillers) -> Layer:
    own = _filled(layer.get(ConvolutionParameter), fillers.convolution)
    return _with(layer, own, (_LEARNED, _BIAS)[: 1 + own.bias_term])


def _deconvolution(layer: Layer, fillers: Fillers) -> Layer:
    """One filter for each channel is what upsampling by interpolation is written as: it starts as just that."""
    own = layer.get(ConvolutionParameter)
    square = len(own.kernel_size) == 1 or own.kernel_h == own.kernel_w
    upsamples = square and own.num_output == own.group > 1
    own = _filled(own, "bilinear" if upsamples else fillers.convolution)
    return _with(layer, own, (_LEARNED, _BIAS)[: 1 + own.bias_term])


def _embed(layer: Layer, fillers: Fillers) -> Layer:
    own = _filled(layer.get(EmbedParameter), fillers.inner_product)
    return _with(layer, own, (_LEARNED, _BIAS)[: 1 + own.bias_term])


def _recurrent(layer: Layer, fillers: Fillers) -> Layer:
    own = layer.get(RecurrentParameter)
    if not own.has("weight_filler"):
        own = own.replace(weight_filler=FillerParameter(type=fillers.inner_product))
    return _with(layer, own, ())


def _inner_product(layer: Layer, fillers: Fillers) -> Layer:
    own = _filled(layer.get(InnerProductParameter), fillers.inner_product)
    return _with(layer, own, (_LEARNED, _BIAS)[: 1 + own.bias_term])


def _bn(layer: Layer, fillers: Fillers) -> Layer:
    """Slope and bias are learned; the two statistics are the layer's own. The author's answer to his readers."""
    own = layer.get(BNParameter).replace(slope_filler={"value": 1}, bias_filler={"value": 0})
    if fillers.freeze_bn:
        return _with(layer, own, (NOT_LEARNED,) * 4)
    own = own.replace(frozen=None)
    return _with(layer, own, (_LEARNED, _LEARNED, NOT_LEARNED, NOT_LEARNED))


def _batch_norm(layer: Layer, fillers: Fillers) -> Layer:
    own = layer.get(BatchNormParameter)
    return _with(layer, own if fillers.freeze_bn else own.replace(use_global_stats=None), (NOT_LEARNED,) * 3)


def _scale(layer: Layer, fillers: Fillers) -> Layer:
    own = layer.get(ScaleParameter)
    return _with(layer, own, (_LEARNED, _LEARNED)[: 1 + own.bias_term])


_TRAINED = {
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
