"""Deploy net to train_val: adds data layers of both phases, fillers, learning rate multipliers, loss and accuracy."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from prototxt_gen import layers
from prototxt_gen.analysis import analyse
from prototxt_gen.common.errors import NetError, UnsupportedError, one_of
from prototxt_gen.ir import Layer, Net, Shape, Value, show
from prototxt_gen.layers.utility.softmax import SoftmaxParameter
from prototxt_gen.net.blob_conflicts import conflict_errors
from prototxt_gen.passes.deploy_inputs import too_large
from prototxt_gen.passes.trainable_layers import FillerOptions, trainable
from prototxt_gen.schema.caffe_proto import LayerParameter, NetStateRule

DATA_KINDS = ("lmdb", "hdf5", "image-list", "python", "input")
IMAGENET_MEAN = (104.0, 117.0, 123.0)
"""Mean of ImageNet per channel (blue, green, red), which Caffe's ImageNet models subtract."""


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

    def layer(self, phase: str, tops: tuple[str, str] = ("data", "label"), label_axes: Shape = ()) -> Layer:
        """Return the data layer of one phase, with these tops, and with labels of shape N×`label_axes`."""
        type_, fields = getattr(self, f"_{self.kind.replace('-', '_')}")(phase)
        if self.kind == "input" and label_axes:
            fields["input_param"]["shape"][1]["dim"] = (self._batch_size(phase), *label_axes)
        rule = [NetStateRule(phase=phase)]
        values = tuple(map(Value, tops))
        return Layer("data", type_, (), values, LayerParameter(include=rule, **fields))

    def image_shape(self, phase: str, input_shape: Shape | None) -> Shape:
        """Return the shape of the first top; hdf5 files hold what the net's input, of `input_shape`, takes."""
        if self.kind == "hdf5" and input_shape:
            return (self._batch_size(phase), *input_shape[1:])
        return (self._batch_size(phase), self.channels, self.crop, self.crop)

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


def to_train_val(net: Net, data: DataOptions, fillers: FillerOptions | None = None, freeze_bn: bool = False) -> Net:
    """Return the train_val of a deploy net.

    Its input becomes data layers; the Softmax at the end becomes SoftmaxWithLoss, with Accuracy (top-1 and top-5) in
    the TEST phase. Layers get the fillers and multipliers that they lack. Batch normalisation learns unless
    `freeze_bn`. Raises NetError unless the net has one input and ends in a Softmax, or if the train_val would not run.
    """
    softmax = last_softmax(net)
    fillers = replace(fillers or FillerOptions(), freeze_bn=freeze_bn)
    body = [trainable(layer, fillers) for layer in net.layers if layer is not softmax and not _is_data_layer(layer)]
    old, tops = _only_input(net), _data_tops(net)
    axes = _label_axes(net, softmax, data)
    renamed = [_with_blob_renamed(layer, old.blob, tops[0]) for layer in body]
    taken = {layer.name for layer in renamed} | {value.blob for layer in renamed for value in layer.tops} | set(tops)
    ends = [
        _with_unused_name(_with_blob_renamed(layer, old.blob, tops[0]), taken)
        for layer in _loss_and_accuracy(softmax, tops[1], _classes(net, softmax, data))
    ]
    empty = Net(net.name, (), (), net.params, net.source)
    data_layers = [data.layer(phase, tops, axes) for phase in ("TRAIN", "TEST")]
    made = empty.relinked([*data_layers, *renamed, *ends])
    _refuse_broken(made, training_shapes(net, data))
    return made


def training_shapes(net: Net, data: DataOptions) -> dict[str, dict[str, Shape]]:
    """Return the shapes of the data layers' tops in each phase of the train_val of a deploy net."""
    image, label = _data_tops(net)
    axes, shape = _label_axes(net, last_softmax(net), data), _input_shape(net)
    images = {phase: data.image_shape(phase, shape) for phase in ("TRAIN", "TEST")}
    return {phase: {image: found, label: (found[0], *axes)} for phase, found in images.items()}


def _refuse_broken(made: Net, shapes: Mapping[str, Mapping[str, Shape]]) -> None:
    """Raise NetError, with all problems in one text, unless both phases can run as far as the layers are known."""
    problems: dict[str, None] = {}
    for phase, known in shapes.items():
        analysis = analyse(made.at(phase), known)
        wrong = [row.error for row in analysis.rows if row.error is not None and not row.blocked]
        problems.update((str(error), None) for error in wrong if not isinstance(error, UnsupportedError))
        problems.update((str(error), None) for error in conflict_errors(analysis))
        large = (
            f"the data {show(shape)} has more than 2^31-1 elements" for shape in known.values() if too_large(shape)
        )
        problems.update(dict.fromkeys(large))
    if problems:
        where = f"{made.source or made.name}: the train_val would not run"
        raise NetError(
            f"{where}: {next(iter(problems))}" if len(problems) == 1 else "\n  ".join([f"{where}:", *problems])
        )


def _is_data_layer(layer: Layer) -> bool:
    layer_type = layers.find_layer_type(layer.type)
    return layer_type is not None and layer_type.data


def _only_input(net: Net) -> Value:
    inputs = list(net.inputs)
    inputs += [value for layer in net.layers if _is_data_layer(layer) for value in layer.tops]
    if len(inputs) != 1:
        names = ", ".join(value.blob for value in inputs)
        raise NetError(
            f"{net.source or net.name}: it has {len(inputs)} inputs ({names}); a deploy net with one input is needed"
        )
    return inputs[0]


def _input_shape(net: Net) -> Shape | None:
    return analyse(net).shapes.get(_only_input(net))


def _data_tops(net: Net) -> tuple[str, str]:
    """Return the tops of the data layers: "data" and "label", or others if blobs of the net have these names."""
    old = _only_input(net).blob
    softmax = last_softmax(net)
    body = [layer for layer in net.layers if not _is_data_layer(layer) and layer is not softmax]
    computed = {value.blob for layer in body for value in layer.tops}
    image = old if "data" in computed else "data"
    label = next(name for name in ("label", "target_label", "data_label") if name not in computed | {image})
    return image, label


def last_softmax(net: Net) -> Layer:
    """Return the last Softmax whose top is an output. Raises NetError if there is none."""
    ends = set(net.outputs)
    for layer in reversed(net.layers):
        if layer.type == "Softmax" and ends.issuperset(layer.tops):
            return layer
    raise NetError(f"{net.source or net.name}: it does not end in a Softmax, so the loss for training is unknown")


def _score_shape(net: Net, softmax: Layer, data: DataOptions) -> Shape | None:
    """Return the shape of the Softmax's bottom in training, or None if it is unknown."""
    source = _only_input(net)
    shapes = {source.blob: data.image_shape("TRAIN", _input_shape(net))}
    return analyse(net, shapes).shapes.get(softmax.bottoms[0])


def _class_axis(softmax: Layer, shape: Shape) -> int:
    return softmax.get(SoftmaxParameter).axis % len(shape)


def _label_axes(net: Net, softmax: Layer, data: DataOptions) -> Shape:
    """Return the axes of a label after N: none for one label per image. Raises NetError if the data cannot have them.

    Source: src/caffe/layers/softmax_loss_layer.cpp Reshape.
    """
    shape = _score_shape(net, softmax, data)
    if not shape:
        return ()
    axis = _class_axis(softmax, shape)
    axes = (*shape[1:axis], *shape[axis + 1 :]) if axis else ()
    if all(size == 1 for size in axes):
        return ()
    if data.kind in ("hdf5", "input"):
        return axes
    raise softmax.error(
        f"its top is {show(shape)}, so training needs labels {show((shape[0], *axes))}, and a data layer for images "
        "has one label for each image; write --data-layer hdf5 or input"
    )


def _with_blob_renamed(layer: Layer, old: str, new: str) -> Layer:
    if old == new:
        return layer
    bottoms = tuple(Value(new) if v.blob == old else v for v in layer.bottoms)
    tops = tuple(Value(new) if v.blob == old else v for v in layer.tops)
    return Layer(layer.name, layer.type, bottoms, tops, layer.params, layer.line)


def _with_unused_name(layer: Layer, taken: Collection[str]) -> Layer:
    """Return a loss or accuracy with another name if a layer or blob of the net has its name."""
    numbered = (f"{layer.name}{number}" for number in range(2, len(taken) + 3))
    name = next(name for name in (layer.name, *numbered) if name not in taken)
    return replace(layer, name=name, tops=(Value(name),))


def _loss_and_accuracy(softmax: Layer, label: str, classes: int) -> Iterator[Layer]:
    scores = (softmax.bottoms[0], Value(label))
    own = softmax.get(SoftmaxParameter)
    loss_params = LayerParameter(softmax_param=own) if own else LayerParameter()
    yield Layer("loss", "SoftmaxWithLoss", scores, (Value("loss"),), loss_params)
    for top_k in (1, 5):
        if top_k == 1 or classes > top_k:
            rule = [NetStateRule(phase="TEST")]
            fields = {"top_k": top_k} | ({"axis": own.axis} if own.axis != 1 else {})
            params = LayerParameter(include=rule, accuracy_param=fields)
            yield Layer(f"accuracy/top-{top_k}", "Accuracy", scores, (Value(f"accuracy/top-{top_k}"),), params)


def _classes(net: Net, softmax: Layer, data: DataOptions) -> int:
    shape = _score_shape(net, softmax, data)
    return shape[_class_axis(softmax, shape)] if shape else 1000
