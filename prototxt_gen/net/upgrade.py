"""Upgrade of old prototxts: V0 and V1 layers, and transformations written inside data layers, to V2 text trees.

Source: BVLC/caffe src/caffe/util/upgrade_proto.cpp.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

from prototxt_gen import layers
from prototxt_gen.common.errors import PrototxtError
from prototxt_gen.text import Field, Word

Tree = tuple[Field, ...]

_V0_TYPES = {"conv": "Convolution", "pool": "Pooling", "images": "ImageData", "softmaxloss": "SoftmaxWithLoss"}
"""Old type names that differ from the V2 names by more than case and underscores."""

_V0_FIELDS = {
    "biasterm": "bias_term",
    "kernelsize": "kernel_size",
    "batchsize": "batch_size",
    "meanfile": "mean_file",
    "cropsize": "crop_size",
    "shuffle_images": "shuffle",
}
_V0_OF_THE_LAYER = {"name", "type", "blobs", "blobs_lr", "weight_decay"}
V1_CROP_MARK = "crop_rule"
"""Name of a field that marks V1 layers of type CROP: they align the coordinates of their bottoms (`crop_alignment`)."""
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


def first_field(tree: Sequence[Field], name: str) -> Field | None:
    """Return the first field of this name."""
    return next((field for field in tree if field.name == name), None)


def is_v0(layer: Tree) -> bool:
    """Return whether an entry of `layers` is a V0 layer, which has an inner `layer` message."""
    inner = first_field(layer, "layer")
    return inner is not None and isinstance(inner.value, tuple)


@lru_cache(maxsize=4096)
def type_name(old: str) -> str:
    """Return the V2 name of a V0 or V1 type, InnerProduct for INNER_PRODUCT and innerproduct; other names are kept."""
    key = old.replace("_", "").lower()
    if key in _V0_TYPES:
        return _V0_TYPES[key]
    return next((name for name in layers.all_layer_types() if name.lower() == key), old)


def upgrade(old: Sequence[Tree]) -> list[Tree]:
    """Return the V2 layers for the `layers` of a net, which are all V0 or all V1."""
    if any(is_v0(layer) for layer in old):
        old = [_v0_to_v1(layer) for layer in _without_padding_layers(old)]
    return [_v1_to_v2(layer) for layer in old]


def _values_of(layer: Tree, field_name: str) -> list[str]:
    return [str(field.value) for field in layer if field.name == field_name]


def _v0_fields(layer: Tree) -> Tree:
    inner = first_field(layer, "layer")
    return inner.value if inner is not None and isinstance(inner.value, tuple) else ()


def _v0_type(layer: Tree) -> str:
    found = first_field(_v0_fields(layer), "type")
    return str(found.value) if found else ""


def _without_padding_layers(old: Sequence[Tree]) -> Iterator[Tree]:
    """Yield the layers without V0 padding layers; their pad moves into the convolution or pooling that reads them."""
    padding: dict[str, Tree] = {}
    for layer in old:
        sources = [padding[blob] for blob in _values_of(layer, "bottom") if blob in padding]
        if sources:
            layer = _merge_padding(layer, sources[0])
        tops = _values_of(layer, "top")
        if _v0_type(layer) == "padding":
            padding.update(dict.fromkeys(tops, layer))
        else:
            padding = {blob: source for blob, source in padding.items() if blob not in tops}
            yield layer


def _merge_padding(layer: Tree, padding: Tree) -> Tree:
    line = layer[0].line
    if _v0_type(layer) not in ("conv", "pool") or len(_values_of(layer, "bottom")) != 1:
        raise PrototxtError(f"line {line}: only a conv or pool layer with one bottom can read a padding layer", line)
    source = first_field(padding, "bottom")
    if source is None or len(_values_of(padding, "bottom")) != 1 or len(_values_of(padding, "top")) != 1:
        raise PrototxtError(
            f"line {padding[0].line}: a padding layer must have one bottom and one top", padding[0].line
        )
    pad = first_field(_v0_fields(padding), "pad") or Field("pad", 0, line)
    inner = (*(f for f in _v0_fields(layer) if f.name != "pad"), pad)
    replaced = {"bottom": source, "layer": Field("layer", inner, line)}
    return tuple(replaced.get(field.name, field) for field in layer)


def _v0_to_v1(layer: Tree) -> Tree:
    """Return the V1 layer of a V0 layer; of the fields outside the inner `layer`, Caffe keeps only bottom and top."""
    if not is_v0(layer):
        return layer
    type_ = type_name(_v0_type(layer))
    outer = [field for field in layer if field.name in ("bottom", "top")]
    type_fields, transform = [], []
    for name, value, line in _v0_fields(layer):
        field = Field(_V0_FIELDS.get(name, name.removeprefix("det_")), value, line)
        if name in _V0_OF_THE_LAYER or (isinstance(value, tuple) and name.endswith("_param")):
            outer.append(field if name != "type" else Field("type", type_, line))
        elif field.name in _TRANSFORMS:
            transform.append(field)
        else:
            type_fields.append(field)
    if type_fields:
        outer.append(Field(_V0_PARAMS.get(type_, "v0_param"), tuple(type_fields), type_fields[0].line))
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
    if first_field(out, "crop_param") is None and "Crop" in _values_of(tuple(out), "type"):
        out.append(Field(V1_CROP_MARK, Word("coordinates"), layer[0].line))
    params = (Field("param", tuple(spec.values()), _first_line(spec, layer)) for spec in specs)
    return move_transforms((*out, *params))


def _v1_type(field: Field) -> str:
    """Return the V2 name of a V1 type, which is written as a name or as its enum number."""
    from prototxt_gen.caffemodel.reading import V1_TYPES

    if isinstance(field.value, int) and 0 < field.value < len(V1_TYPES):
        return V1_TYPES[field.value]
    return type_name(str(field.value))


_SPEC_FIELDS = {"param": "name", "blob_share_mode": "share_mode", "blobs_lr": "lr_mult", "weight_decay": "decay_mult"}


def _first_line(spec: dict[str, Field], layer: Tree) -> int:
    return next((field.line for field in spec.values()), layer[0].line)


def move_transforms(layer: Tree) -> Tree:
    """Move scale, mean_file, crop_size and mirror of a V1 data layer from its own parameters to its transform_param.

    They replace the fields of the same name there. In a V2 layer Caffe reads only transform_param.
    Source: src/caffe/util/upgrade_proto.cpp UpgradeNetDataTransformation.
    """
    if not any(f.name in _DATA_PARAMS and _has_transform(f) for f in layer):
        return layer
    moved: list[Field] = []
    existing: list[Field] = []
    out: list[Field] = []
    for field in layer:
        if field.name in _DATA_PARAMS and isinstance(field.value, tuple):
            moved += [inner for inner in field.value if inner.name in _TRANSFORMS]
            kept = tuple(inner for inner in field.value if inner.name not in _TRANSFORMS)
            out.append(Field(field.name, kept, field.line))
        elif field.name == "transform_param" and isinstance(field.value, tuple):
            existing += field.value
        else:
            out.append(field)
    names = {field.name for field in moved}
    transform = (*(field for field in existing if field.name not in names), *moved)
    return (*out, Field("transform_param", transform, transform[0].line))


def _has_transform(field: Field) -> bool:
    return isinstance(field.value, tuple) and any(inner.name in _TRANSFORMS for inner in field.value)
