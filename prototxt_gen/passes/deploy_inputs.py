"""The inputs of a deploy net: which blobs they are, their shapes, and the batch size that the net allows."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from prototxt_gen.analysis import Analysis, Row, analyse
from prototxt_gen.common.errors import NetError, UnsupportedError
from prototxt_gen.ir import Layer, Net, Shape, Value, show
from prototxt_gen.layers.base import MAX_COUNT
from prototxt_gen.net.blob_conflicts import conflict_errors
from prototxt_gen.net.shared_parameters import sharing_errors
from prototxt_gen.passes.prediction_heads import is_data_layer


def undefined_blobs(body: Net) -> list[str]:
    """Return the blobs that layers of the net read and that neither an input nor an earlier layer defines, in order."""
    return list(dict.fromkeys(v.blob for layer in body.layers for v in layer.bottoms if v.version < 0))


def with_inputs(
    body: Net, phase_net: Net, whole_net: Net, given: Mapping[str, Shape], free_batch: Collection[str]
) -> tuple[Net, list[str]]:
    """Return the net with an input for each undefined blob of `body`, and remarks.

    Shapes are those of `given`, else those of the inputs and data layers of `phase_net`, else of data layers of the
    other phases and stages of `whole_net`. The batch size becomes 1 where no shape is given (or the blob is in
    `free_batch`) and no layer depends on the batch size in the file. Raises NetError if a shape is unknown.
    """
    shapes, remarks = _input_shapes(body, phase_net, whole_net, given)
    fixed = [blob for blob in shapes if blob in given and blob not in free_batch]
    reference = analyse(_net_with(body, shapes))
    for batch in dict.fromkeys([*(shapes[blob][0] for blob in fixed if shapes[blob]), 1]):
        changed = {blob: s if blob in fixed else (batch, *s[1:]) if s else s for blob, s in shapes.items()}
        found = analyse(_net_with(body, changed))
        if changed == shapes or _is_same_net_with_other_batch(reference, found, shapes, changed):
            return found.net, remarks
    cause = next((row.layer for row in found.rows if is_wrong(row)), None)
    why = f"layer {cause.name!r} ({cause.type}) does not allow 1" if cause else "layers depend on it"
    sizes = ", ".join(f"{blob!r} is {show(shape)}" for blob, shape in shapes.items())
    return reference.net, [*remarks, f"the batch size stays as in the file, since {why}: {sizes}"]


def is_wrong(row: Row) -> bool:
    """Return whether the layer is wrong, and not only unknown or after another such layer."""
    return row.error is not None and not row.blocked and not isinstance(row.error, UnsupportedError)


def too_large(shape: Shape) -> bool:
    """Return whether a blob of this shape has more elements than Caffe allows."""
    return math.prod(shape) > MAX_COUNT


def refuse_broken(net: Net) -> None:
    """Raise NetError, with all problems in one text, unless the deploy net can run as far as its layers are known."""
    analysis = analyse(net)
    problems = [str(row.error) for row in analysis.rows if is_wrong(row)]
    problems += [*map(str, conflict_errors(analysis)), *map(str, sharing_errors(analysis.rows))]
    problems += [
        str(layer.error(f"its bottom {value.blob!r} is not the top of an earlier layer"))
        for layer in net.layers
        for value in layer.bottoms
        if value.version < 0
    ]
    large = (value for value in net.inputs if value.shape and too_large(value.shape))
    problems += [f"its input {value.blob!r} {show(value.shape)} has more than 2^31-1 elements" for value in large]
    where = f"{net.source or net.name}: the deploy net would not run"
    if problems:
        raise NetError(f"{where}: " + (problems[0] if len(problems) == 1 else "".join(f"\n  {p}" for p in problems)))
    if not net.inputs:
        raise NetError(f"{where}: it has no input")


def _net_with(body: Net, shapes: Mapping[str, Shape]) -> Net:
    inputs = tuple(Value(blob, 0, shape) for blob, shape in shapes.items())
    return replace(body, inputs=inputs, layers=()).relinked(body.layers)


def _input_shapes(
    body: Net, phase_net: Net, whole_net: Net, given: Mapping[str, Shape]
) -> tuple[dict[str, Shape], list[str]]:
    """Return the shapes of the undefined blobs, in the order in which the file defines them, and remarks."""
    undefined = undefined_blobs(body)
    of_phase, of_file = _source_shapes(phase_net, given), _source_shapes(_only_data(whole_net), given)
    order = [blob for blob in dict.fromkeys([*of_phase, *of_file, *undefined]) if blob in undefined]
    computed = set(_blobs_with_a_first_writer(phase_net))
    shapes: dict[str, Shape] = {}
    remarks, problems = [], []
    for blob in order:
        declared = of_phase.get(blob) or of_file.get(blob)
        shape = given.get(blob) or declared
        if blob in computed and blob not in of_phase:
            problems.append(f"{blob!r} is read before a layer computes it")
        elif shape is not None:
            shapes[blob] = shape
            if blob not in of_phase and blob not in given:
                remarks.append(
                    f"no layer of this phase makes {blob!r}; its shape is that of another phase's or stage's data layer"
                )
        elif blob in of_phase or blob in of_file:
            problems.append(f"the shape of {blob!r} is not in the file; give it with --shape {blob}=1x3x224x224")
        elif (maker := _maker_in_other_modes(whole_net, blob)) is not None:
            problems.append(
                f"no layer of this phase makes {blob!r}; layer {maker.name!r} ({maker.type}) makes it with another "
                "--phase, --stage or --level"
            )
        else:
            problems.append(
                f"no layer of this phase makes {blob!r}, nor does a data layer of another; to make it an input, "
                f"give its shape with --shape {blob}=1x3x224x224"
            )
    if problems:
        raise NetError(f"{whole_net.source or whole_net.name}: {'; '.join(problems)}")
    return shapes, remarks


def _blobs_with_a_first_writer(net: Net) -> Iterator[str]:
    """Yield the blobs that a layer writes first without reading them: not those that are only changed in place."""
    for layer in net.layers:
        if not _is_source(layer):
            read = {value.blob for value in layer.bottoms if value.version < 0}
            yield from (top.blob for top in layer.tops if top.version == 0 and top.blob not in read)


def _maker_in_other_modes(net: Net, blob: str) -> Layer | None:
    """Return a layer, of any phase and stage, that computes the blob without reading it."""
    makers = (k for k in net.layers if not _is_source(k) and any(top.blob == blob for top in k.tops))
    return next((k for k in makers if all(value.blob != blob for value in k.bottoms)), None)


def _is_source(layer: Layer) -> bool:
    return is_data_layer(layer) or layer.type == "DummyData"


def _only_data(net: Net) -> Net:
    """Return the data layers of all phases and stages, each with its own tops."""
    return net.relinked([layer for layer in net.layers if is_data_layer(layer)])


def _source_shapes(net: Net, given: Mapping[str, Shape]) -> dict[str, Shape | None]:
    """Return the shapes, None if unknown, of the inputs and the tops of data layers; of two data layers, the last."""
    analysis = analyse(net, given)
    tops = (top for layer in net.layers if _is_source(layer) for top in layer.tops)
    shapes: dict[str, Shape | None] = {}
    for value in (*net.inputs, *tops):
        shapes[value.blob] = analysis.shapes.get(value) or shapes.get(value.blob)
    return shapes


def _is_same_net_with_other_batch(
    reference: Analysis, found: Analysis, before: Mapping[str, Shape], after: Mapping[str, Shape]
) -> bool:
    """Return whether only the batch size differs: the same learned blobs, and tops that scale with the batch."""
    ratios = {(old[0], after[blob][0]) for blob, old in before.items() if old and after[blob]}
    if any(map(is_wrong, found.rows)):
        return False
    return all(_scales(old, new, ratios) for old, new in zip(reference.rows, found.rows, strict=True))


def _scales(old: Row, new: Row, ratios: Collection[tuple[int, int]]) -> bool:
    if not (old.known and new.known):
        return new.known or not old.known
    specs = zip(old.blobs.values(), new.blobs.values(), strict=True)
    if any(before.shape != after.shape for before, after in specs):
        return False
    changed_batch = any(_changed_axes(a, b) == [0] for a, b in zip(old.bottoms, new.bottoms, strict=True))
    for before, after in zip(old.tops, new.tops, strict=True):
        axes = _changed_axes(before, after)
        if before is None or after is None or not axes:
            continue
        moved = old.layer.type in ("Reshape", "Flatten") and changed_batch and axes != [0]
        if len(axes) != 1 or moved or not _is_ratio(before[axes[0]], after[axes[0]], ratios):
            return False
    return True


def _changed_axes(before: Shape | None, after: Shape | None) -> list[int]:
    if before is None or after is None or len(before) != len(after):
        return [] if before == after else [0, 1]
    return [axis for axis, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]


def _is_ratio(before: int, after: int, ratios: Collection[tuple[int, int]]) -> bool:
    return any(before * new == after * old for old, new in ratios)


def constants_as_inputs(layers: Sequence[Layer], body: Net) -> Iterator[Layer]:
    """Yield the layers of a net without those DummyData layers that stand for its data, if nothing else is an input."""
    if undefined_blobs(body):
        yield from layers
        return
    yield from (layer for layer in layers if layer.type != "DummyData")
