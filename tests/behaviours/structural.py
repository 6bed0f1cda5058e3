"""Layers that move elements without changing them."""
# ruff: noqa: E501 (tables: a net a line)

from __future__ import annotations

from prototxt_gen.layers.example import labels, literal
from tests.behaviours.notation import B


def one(name: str, inputs: str, type_: str, params: str = "", **more: object) -> B:
    line = f"it: {type_} data > it" + (f" | {params}" if params else "")
    return B(f"{type_.lower()}: {name}", inputs, line, **more)  # type: ignore[arg-type]


CONCATS = (
    B("concat: default axis", "a 2 3 4 4; b 2 2 4 4", "cat: Concat a b > cat"),
    B("concat: axis 0", "a 2 3 4; b 1 3 4", "cat: Concat a b > cat | concat_param { axis: 0 }"),
    B("concat: axis 2", "a 2 3 4 4; b 2 3 1 4", "cat: Concat a b > cat | concat_param { axis: 2 }"),
    B("concat: last axis", "a 2 3 4 4; b 2 3 4 2", "cat: Concat a b > cat | concat_param { axis: -1 }"),
    B("concat: concat_dim", "a 2 3 4 4; b 2 3 2 4", "cat: Concat a b > cat | concat_param { concat_dim: 2 }"),
    B("concat: one bottom", "a 2 3 4 4", "cat: Concat a > cat"),
    B("concat: four bottoms, one twice", "a 2 3 4; b 2 1 4; c 2 2 4", "cat: Concat a b a c > cat"),
)

SLICES = (
    B("slice: default axis, equal parts", "data 2 6 4 4", "sl: Slice data > a b c"),
    B("slice: slice_point", "data 2 6 4 4", "sl: Slice data > a b c | slice_param { slice_point: 1 slice_point: 4 }"),
    B("slice: axis 2", "data 2 3 6 4", "sl: Slice data > a b | slice_param { axis: 2 }"),
    B("slice: last axis, points", "data 2 3 4 7", "sl: Slice data > a b | slice_param { axis: -1 slice_point: 3 }"),
    B("slice: slice_dim", "data 2 3 6 4", "sl: Slice data > a b | slice_param { slice_dim: 2 }"),
    B("slice: axis 0", "data 4 3 4", "sl: Slice data > a b | slice_param { axis: 0 }"),
    B("slice: one top", "data 2 3 4", "sl: Slice data > a"),
)

CROPS = (
    B("crop: defaults", "data 2 3 7 8; like 2 3 4 5", "cut: Crop data like > cut"),
    B("crop: one offset", "data 2 3 7 8; like 2 5 4 5", "cut: Crop data like > cut | crop_param { offset: 2 }"),
    B("crop: axis 1, an offset each", "data 2 6 7 8; like 2 3 4 5",
      "cut: Crop data like > cut | crop_param { axis: 1 offset: 3 offset: 1 offset: 2 }"),
    B("crop: last axis alone", "data 2 3 7 8; like 9 9 9 5", "cut: Crop data like > cut | crop_param { axis: -1 offset: 1 }"),
    B("crop: axis 3", "data 2 3 7 8; like 2 3 7 5", "cut: Crop data like > cut | crop_param { axis: 3 offset: 2 }"),
    B("crop: all axes", "data 4 5 7; like 2 3 4", "cut: Crop data like > cut | crop_param { axis: 0 offset: 1 }"),
    B("crop: FCN's, to the size of the image", "data 1 3 9 9",
      """score: Convolution data > score | convolution_param { num_output: 2 kernel_size: 1 pad: 4 }
      up: Deconvolution score > up | convolution_param { num_output: 2 kernel_size: 4 stride: 2 bias_term: false }
      out: Crop up data > out | crop_param { axis: 2 offset: 5 }"""),
)  # fmt: skip


def reshape(name: str, inputs: str, params: str) -> B:
    return one(name, inputs, "Reshape", f"reshape_param {{ {params} }}")


RESHAPES = (
    reshape("0 and -1", "data 2 3 4 4", "shape { dim: 0 dim: -1 }"),
    reshape("given", "data 2 3 4 4", "shape { dim: 2 dim: 12 dim: 4 }"),
    reshape("-1 first", "data 2 3 4 4", "shape { dim: -1 dim: 0 dim: 8 dim: 2 }"),
    reshape("axis", "data 2 3 4 5", "shape { dim: 10 dim: 2 } axis: 2"),
    reshape("axis and num_axes", "data 2 3 4 5", "shape { dim: 6 dim: 2 } axis: 1 num_axes: 2"),
    reshape("num_axes 0 puts axes in", "data 2 3 4", "shape { dim: 1 dim: 1 } axis: 1 num_axes: 0"),
    reshape("axis -1 appends axes", "data 2 3 4", "shape { dim: 1 dim: 1 } axis: -1"),
    reshape("negative axis, num_axes", "data 2 3 4 5", "shape { dim: -1 } axis: -3 num_axes: 2"),
    reshape("0 inside the axes it changes", "data 2 3 4 5", "shape { dim: 0 dim: -1 dim: 2 } axis: 1"),
    reshape("batch to one", "data 2 3 4 4", "shape { dim: 1 dim: -1 dim: 4 dim: 4 }"),
    reshape("to one axis", "data 2 3 4", "shape { dim: -1 }"),
    reshape("to an empty shape", "data 1 1", "shape { }"),
    reshape("all axes kept", "data 2 3 4 4", "shape { dim: 0 dim: 0 dim: 0 dim: 0 }"),
    one("default", "data 2 3 4 5", "Flatten"),
    one("axis 2", "data 2 3 4 5", "Flatten", "flatten_param { axis: 2 }"),
    one("axis 0 to 1", "data 2 3 4 5", "Flatten", "flatten_param { axis: 0 end_axis: 1 }"),
    one("axis 1 to -2", "data 2 3 4 5", "Flatten", "flatten_param { axis: 1 end_axis: -2 }"),
    one("last axis alone", "data 2 3 4 5", "Flatten", "flatten_param { axis: -1 }"),
    one("everything", "data 2 3 4", "Flatten", "flatten_param { axis: 0 }"),
)

MOVES = (
    one("SSD's", "data 2 3 4 5", "Permute", "permute_param { order: 0 order: 2 order: 3 order: 1 }"),
    one("the rest in order", "data 2 3 4 5", "Permute", "permute_param { order: 2 }"),
    one("nothing", "data 2 3 4", "Permute", "permute_param { order: 0 order: 1 order: 2 }"),
    one("batch moved", "data 2 3 4", "Permute", "permute_param { order: 1 order: 0 order: 2 }"),
    one("default axis", "data 2 3 4", "Tile", "tile_param { tiles: 3 }"),
    one("axis 0", "data 2 3", "Tile", "tile_param { axis: 0 tiles: 2 }"),
    one("last axis", "data 2 3 4 5", "Tile", "tile_param { axis: -1 tiles: 2 }"),
    one("one", "data 2 3 4 5", "Tile", "tile_param { axis: 2 tiles: 1 }"),
    B("split: three tops", "data 2 3 4", "sp: Split data > a b c\nx: Power a > x | power_param { shift: 1 }"),
    B("silence", "data 2 3; other 2 3", "quiet: Silence other >\nx: Power data > x | power_param { shift: 1 }"),
    B("silence: of a layer's top", "data 2 6", "sl: Slice data > a b\nquiet: Silence b >\nx: AbsVal a > x"),
    B("parameter", "data 2 3 4",
      "w: Parameter > w | parameter_param { shape { dim: 2 dim: 3 dim: 4 } }\nsum: Eltwise data w > sum"),
    B("parameter: scales channels", "data 2 3 4 4",
      "w: Parameter > w | parameter_param { shape { dim: 3 } }\nout: Scale data w > out | scale_param { axis: 1 }"),
    B("dummydata: a constant", "data 2 3",
      'c: DummyData > c | dummy_data_param { shape { dim: 2 dim: 3 } data_filler { type: "constant" value: 0.75 } }\n'
      "sum: Eltwise data c > sum"),
    B("dummydata: old dims, no filler", "data 2 3 1 2",
      "c: DummyData > c | dummy_data_param { num: 2 channels: 3 height: 1 width: 2 }\nsum: Eltwise data c > sum"),
    B("filter", "data 4 3 2; keep 4", "out: Filter data keep > out", draws={"keep": literal([1, 0, 0, 1])}),
    B("filter: two blobs, selector of four axes", "data 4 3; more 4 1 2; keep 4 1 1 1",
      "out: Filter data more keep > x y", draws={"keep": literal([0, 1, 1, 1])}),
    B("batchreindex", "data 4 3 2; which 5", "out: BatchReindex data which > out", draws={"which": labels(4)}),
    B("batchreindex: fewer", "data 4 3 2; which 2", "out: BatchReindex data which > out", draws={"which": labels(4)}),
    B("reshape then flatten then concat", "a 2 3 4; b 2 12",
      """r: Reshape b > r | reshape_param { shape { dim: 0 dim: 3 dim: -1 } }
      cat: Concat a r > cat | concat_param { axis: 2 }
      f: Flatten cat > f"""),
)  # fmt: skip

BEHAVIOURS = CONCATS + SLICES + CROPS + RESHAPES + MOVES
