"""Old prototxts made new: V0 and V1 layers, and the transformations once kept in data layers, as V2 text trees.

Source: BVLC/caffe src/caffe/util/upgrade_proto.cpp.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

from prototxt_gen import layers
from prototxt_gen.common.errors import PrototxtError
from prototxt_gen.text import Field

Tree = tuple[Field, ...]

_V0_TYPES = {"conv": "Convolution", "pool": "Pooling", "images": "ImageData", "softmaxloss": "SoftmaxWithLoss"}
"""Old type names that are not their V2 names in another spelling."""

_V0_FIELDS = {
    "biasterm": "bias_term",
    "kernelsize": "kernel_size",
    "batchsize": "batch_size",
    "meanfile": "mean_file",
    "cropsize": "crop_size",
    "shuffle_images": "shuffle",
}
_V0_OF_THE_LAYER = {"name", "type", "blobs", "blobs_lr", "weight_decay"}
_TRANSFORMS = {"scale", "mean_file", "crop_size", "mirror"}
_DATA_PARAMS = {"data_param", "image_data_param", "window_data_param"}
_V0_PARAMS = {
    "Convolution": "convolution_param",
    "InnerProduct": "inner_product_param",
    "Pooling": "pooling_param",
    "Dropout": "dropout_param",
    "LRN": "lrn_param",
    "Data": "data_param",
    "HDF5Data": "hdf5_data_param",
    "ImageData": "image_data_param",
    "WindowData": "window_data_param",
    "InfogainLoss": "infogain_loss_param",
    "Concat": "concat_param",
}


def first(tree: Sequence[Field], name: str) -> Field | None:
    """Return the first field of this name."""
    return next((field for field in tree if field.name == name), None)


def is_v0(layer: Tree) -> bool:
    """Whether a V1 layer wraps a V0 one."""
    inner = first(layer, "layer")
    return inner is not None and isinstance(inner.value, tuple)


@lru_cache(maxsize=4096)
def type_name(old: str) -> str:
    """Return the V2 name of a V0 or V1 type: `INNER_PRODUCT` and `innerproduct` are InnerProduct; others are kept."""
    key = old.replace("_", "").lower()
    if key in _V0_TYPES:
        return _V0_TYPES[key]
    return next((name for name in layers.all_layer_types() if name.lower() == key), old)


def upgrade(old: Sequence[Tree]) -> list[Tree]:
    """Return V2 layers for the `layers` of a net, all V0 or all V1."""
    if any(is_v0(layer) for layer in old):
        old = [_v0_to_v1(layer) for layer in _without_padding(old)]
    return [_v1_to_v2(layer) for layer in old]


def _names(layer: Tree, what: str) -> list[str]:
    return [str(field.value) for field in layer if field.name == what]


def _v0_inner(layer: Tree) -> Tree:
    inner = first(layer, "layer")
    return inner.value if inner is not None and isinstance(inner.value, tuple) else ()


def _v0_type(layer: Tree) -> str:
    found = first(_v0_inner(layer), "type")
    return str(found.value) if found else ""


def _without_padding(old: Sequence[Tree]) -> Iterator[Tree]:
    """Move the pad of each V0 padding layer into the convolution or pooling that takes it."""
    padding: dict[str, Tree] = {}
    for layer in old:
        sources = [padding[blob] for blob in _names(layer, "bottom") if blob in padding]
        if sources:
            layer = _merge_padding(layer, sources[0])
        tops = _names(layer, "top")
        if _v0_type(layer) == "padding":
            padding.update(dict.fromkeys(tops, layer))
        else:
            padding = {blob: source for blob, source in padding.items() if blob not in tops}
            yield layer


def _merge_padding(layer: Tree, padding: Tree) -> Tree:
    line = layer[0].line
    if _v0_type(layer) not in ("conv", "pool") or len(_names(layer, "bottom")) != 1:
        raise PrototxtError(f"line {line}: only a conv or pool layer of one bottom can take a padding layer", line)
    source = first(padding, "bottom")
    if source is None or len(_names(padding, "bottom")) != 1 or len(_names(padding, "top")) != 1:
        raise PrototxtError(f"line {padding[0].line}: a padding layer has one bottom and one top", padding[0].line)
    pad = first(_v0_inner(padding), "pad") or Field("pad", 0, line)
    inner = (*(f for f in _v0_inner(layer) if f.name != "pad"), pad)
    replaced = {"bottom": source, "layer": Field("layer", inner, line)}
    return tuple(replaced.get(field.name, field) for field in layer)


def _v0_to_v1(layer: Tree) -> Tree:
    """Of what is around the V0 layer Caffe takes the ends alone."""
    if not is_v0(layer):
        return layer
    type_ = type_name(_v0_type(layer))
    outer = [field for field in layer if field.name in ("bottom", "top")]
    own, transform = [], []
    for name, value, line in _v0_inner(layer):
        field = Field(_V0_FIELDS.get(name, name.removeprefix("det_")), value, line)
        if name in _V0_OF_THE_LAYER or (isinstance(value, tuple) and name.endswith("_param")):
            outer.append(field if name != "type" else Field("type", type_, line))
        elif field.name in _TRANSFORMS:
            transform.append(field)
        else:
            own.append(field)
    if own:
        outer.append(Field(_V0_PARAMS.get(type_, "v0_param"), tuple(own), own[0].line))
    if transform:
        outer.append(Field("transform_param", tuple(transform), transform[0].line))
    return tuple(outer)


def _v1_to_v2(layer: Tree) -> Tree:
    specs: list[dict[str, Field]] = []
    counts: dict[str, int] = {}
    out: list[Field] = []
    for field in layer:
        if field.name in _SPEC_FIELDS and not isinstance(field.value, tuple):
            index = counts.get(field.name, 0)
            counts[field.name] = index + 1
            specs.extend({} for _ in range(index + 1 - len(specs)))
            specs[index][field.name] = Field(_SPEC_FIELDS[field.name], field.value, field.line)
        elif field.name == "type":
            out.append(Field("type", _v1_type(field), field.line))
        else:
            out.append(field)
    params = (Field("param", tuple(spec.values()), _line(spec, layer)) for spec in specs)
    return move_transforms((*out, *params))


def _v1_type(field: Field) -> str:
    """Return the V2 name of a V1 type, which may be given by its number."""
    from prototxt_gen.caffemodel.reading import V1_TYPES

    if isinstance(field.value, int) and 0 < field.value < len(V1_TYPES):
        return V1_TYPES[field.value]
    return type_name(str(field.value))


_SPEC_FIELDS = {"param": "name", "blob_share_mode": "share_mode", "blobs_lr": "lr_mult", "weight_decay": "decay_mult"}


def _line(spec: dict[str, Field], layer: Tree) -> int:
    return next((field.line for field in spec.values()), layer[0].line)


def move_transforms(layer: Tree) -> Tree:
    """Move scale, mean_file, crop_size and mirror from a V1 data layer's own parameters to its transform_param.

    There they take the place of those it has. In a V2 layer Caffe looks at transform_param alone.
    Source: src/caffe/util/upgrade_proto.cpp UpgradeNetDataTransformation.
    """
    if not any(f.name in _DATA_PARAMS and _has_transform(f) for f in layer):
        return layer
    moved: list[Field] = []
    given: list[Field] = []
    out: list[Field] = []
    for field in layer:
        if field.name in _DATA_PARAMS and isinstance(field.value, tuple):
            moved += [inner for inner in field.value if inner.name in _TRANSFORMS]
            kept = tuple(inner for inner in field.value if inner.name not in _TRANSFORMS)
            out.append(Field(field.name, kept, field.line))
        elif field.name == "transform_param" and isinstance(field.value, tuple):
            given += field.value
        else:
            out.append(field)
    names = {field.name for field in moved}
    transform = (*(field for field in given if field.name not in names), *moved)
    return (*out, Field("transform_param", transform, transform[0].line))


def _has_transform(field: Field) -> bool:
    return isinstance(field.value, tuple) and any(inner.name in _TRANSFORMS for inner in field.value)
