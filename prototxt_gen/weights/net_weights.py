"""Weights: the learned arrays of a net by layer and role, checked against the blobs that the net's layers need.

The structure comes from the prototxt and the values from the weights file; one error lists all differences.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike, fspath
from typing import Any

import numpy as np

from prototxt_gen import caffemodel, layers
from prototxt_gen.analysis import Analysis, Row
from prototxt_gen.caffemodel.types import CaffeModel, NewLayer, StoredLayer
from prototxt_gen.common.errors import WeightsError
from prototxt_gen.ir import Layer
from prototxt_gen.net import shared_parameters
from prototxt_gen.schema.dialect import DIALECTS, Dialect
from prototxt_gen.weights.blob_matching import layer_label, matched_blobs

Array = np.ndarray[Any, Any]
STATISTICS = ("inverse_std", "variance")
"""The two possible contents of the fourth blob of BN: 1/sqrt(variance + eps), or the variance itself."""
_V1_BN_FIELD_NUMBERS = {43: "happynear", 211: "brocolli"}


@dataclass(frozen=True)
class Weights:
    """Learned arrays of a net. `blobs` is {layer name: {role: float32 array}}.

    The role of the fourth blob of BN is `inverse_std` or `variance`. `source` is the path of the file. `remarks` are
    sentences for the user, such as which layers of the file the net does not have.
    """

    blobs: Mapping[str, Mapping[str, Array]]
    source: str = ""
    remarks: tuple[str, ...] = field(default=(), compare=False)

    def of(self, layer: str) -> Mapping[str, Array]:
        """Return the arrays of a layer by role; an empty dict if it has none."""
        return self.blobs.get(layer, {})


def possible_dialects(model: CaffeModel) -> list[Dialect]:
    """Return the forks that may have written a file, judging by the field numbers of its BN and Interp layers.

    The list is empty if the file has no such layers, or if they contradict each other.
    """
    candidates = [forks for layer in model.layers if (forks := _dialects_of_layer(layer))]
    return [fork for fork in DIALECTS.values() if candidates and all(fork in forks for forks in candidates)]


def _dialects_of_layer(layer: StoredLayer) -> list[Dialect]:
    name = {"BN": "bn_param", "Interp": "interp_param"}.get(layer.type)
    if name is None or not layer.fields:
        return []
    table = {d: {number} for d in DIALECTS.values() if (number := d.number(name)) is not None}
    for number, fork in _V1_BN_FIELD_NUMBERS.items():
        if layer.version == "V1" and name == "bn_param":
            table[DIALECTS[fork]].add(number)
    return [fork for fork, numbers in table.items() if numbers & layer.fields]


def bn_statistic(model: CaffeModel, dialect: str | None, statistic: str | None) -> str:
    """Return what the fourth blob of BN is in this file: "inverse_std" or "variance".

    It is `statistic` if given (also "inverse-std"), else that of the fork, which is `dialect` or detected. Raises
    WeightsError if it cannot be determined, as a wrong guess would give a net that runs with wrong results.
    """
    if statistic is not None:
        if statistic.replace("-", "_") not in STATISTICS:
            raise WeightsError(f"the BN statistic must be one of {', '.join(STATISTICS)}, not {statistic!r}")
        return statistic.replace("-", "_")
    from prototxt_gen.schema.dialect import find_dialect

    forks = [find_dialect(dialect)] if dialect else possible_dialects(model)
    meanings = {fork.bn_statistic for fork in forks}
    if len(meanings) == 1 and meanings != {""}:
        return meanings.pop()
    names = ", ".join(fork.name for fork in forks)
    raise WeightsError(
        f"{model.path}: the meaning of the fourth blob of its BN layers is unknown "
        f"({f'fork {names} uses both' if forks else 'the fork that wrote the file cannot be detected'}): "
        "give --bn-statistic inverse-std or variance"
    )


def read(
    path: str | PathLike[str], analysis: Analysis, dialect: str | None = None, statistic: str | None = None
) -> Weights:
    """Read the weights of an analysed net from a .caffemodel or .caffemodel.h5. Arrays are views of the mapped file.

    For `dialect` and `statistic` see `bn_statistic`. Raises WeightsError, which lists all problems, if blobs are
    missing, superfluous or of another shape.
    """
    model = caffemodel.read(path)
    stored: dict[str, list[StoredLayer]] = {}
    for layer in model.layers:
        stored.setdefault(layer.name, []).append(layer)
    problems: list[str] = []
    blobs: dict[str, dict[str, Array]] = {}
    for row in analysis.rows:
        if row.blobs and row.layer.name in blobs:
            earlier = "an earlier layer has the same name, and Caffe gives the weights to that layer"
            problems.append(f"{layer_label(row.layer)}: {earlier}")
        elif row.blobs:
            blobs[row.layer.name] = matched_blobs(row, stored.get(row.layer.name, []), problems)
        elif row.known:  # a layer without learned blobs must not have any in the file
            matched_blobs(row, stored.get(row.layer.name, []), problems)
    _share_blobs(analysis, stored, blobs)
    problems += _missing_weights(analysis, stored, blobs)
    if problems:
        listed = "".join(f"\n  {problem}" for problem in problems)
        raise WeightsError(f"{fspath(path)} does not fit {analysis.net.source or analysis.net.name}:{listed}")
    if any(_has_bn_statistic(roles) for roles in blobs.values()):
        meaning = bn_statistic(model, dialect, statistic)
        if meaning == "inverse_std":
            _refuse_impossible_inverse_std(fspath(path), blobs)
        blobs = {name: _with_statistic_role(roles, meaning) for name, roles in blobs.items()}
    return Weights(blobs, fspath(path), tuple(_remarks(stored, analysis)))


def _has_bn_statistic(roles: Mapping[str, Array]) -> bool:
    return "inverse_std" in roles


def _refuse_impossible_inverse_std(path: str, blobs: Mapping[str, Mapping[str, Array]]) -> None:
    inverse = {name: roles["inverse_std"] for name, roles in blobs.items() if _has_bn_statistic(roles)}
    wrong = [name for name, array in inverse.items() if _has_impossible_values(array)]
    if wrong:
        more = f" and {len(wrong) - 1} more layers" if len(wrong) > 1 else ""
        raise WeightsError(
            f"{path}: layer {wrong[0]!r} (BN){more}: its fourth blob, read as inverse standard deviations, has values "
            f"below 0 or above {_MAX_INVERSE_STD:g}"
        )


_MAX_INVERSE_STD = 1e18
"""Largest plausible 1/sqrt(variance + eps): for a greater one, variance + eps would be too small for float32."""


def _has_impossible_values(inverse: Array) -> bool:
    return bool(((inverse < 0) | ((inverse > _MAX_INVERSE_STD) & np.isfinite(inverse))).any())


def _with_statistic_role(roles: dict[str, Array], meaning: str) -> dict[str, Array]:
    return {meaning if role == "inverse_std" else role: array for role, array in roles.items()}


LayersByName = Mapping[str, Sequence[StoredLayer]]
"""The layers of a weights file by name."""


def _share_blobs(analysis: Analysis, stored: LayersByName, blobs: dict[str, dict[str, Array]]) -> None:
    """Give all learned blobs that share a `param` name the values of the stored copy that takes effect."""
    file_order = {(name, role): stored[name][-1].index for name, roles in blobs.items() for role in roles}
    shapes = {(row.layer.name, role): spec.shape for row in analysis.rows for role, spec in row.blobs.items()}
    for (layer, role), source in shared_parameters.effective_stored_blobs(analysis.rows, file_order).items():
        blobs[layer][role] = blobs[source[0]][source[1]].reshape(shapes[layer, role])
    for row in analysis.rows:  # the order of roles matters to layer types, and shared blobs were added at the end
        if (roles := blobs.get(row.layer.name, {})).keys() == row.blobs.keys():
            blobs[row.layer.name] = {role: roles[role] for role in row.blobs}


def _missing_weights(
    analysis: Analysis, stored: LayersByName, blobs: Mapping[str, Mapping[str, Array]]
) -> Iterator[str]:
    """Yield a sentence for each layer that gets no values for some of its blobs, unless a mismatch was reported."""
    for row in analysis.rows:
        roles = blobs.get(row.layer.name, {})
        already_reported = not roles and any(layer.blobs for layer in stored.get(row.layer.name, ()))
        missing = [role for role in row.blobs if role not in roles]
        if missing and not already_reported and roles.keys() <= row.blobs.keys():
            yield f"{layer_label(row.layer)}: no weights for its {', '.join(missing)}"


_MAX_NAMES = 5


def _remarks(stored: Mapping[str, Sequence[StoredLayer]], analysis: Analysis) -> Iterator[str]:
    needed = {row.layer.name for row in analysis.rows if row.blobs}
    unused = [name for name, same in stored.items() if name not in needed and any(layer.blobs for layer in same)]
    if unused:
        more = f" and {len(unused) - _MAX_NAMES} more" if len(unused) > _MAX_NAMES else ""
        yield f"the file has weights that the net does not use: {', '.join(map(repr, unused[:_MAX_NAMES]))}{more}"
    for name, same in stored.items():
        if len([layer for layer in same if layer.blobs]) > 1 and name in needed:
            yield f"layer {name!r}: the file has several layers of this name; the last one is used, as in Caffe"


def write(
    path: str | PathLike[str], analysis: Analysis, weights: Weights, dialect: Dialect, force: bool = False
) -> None:
    """Write a .caffemodel with the field numbers of a fork; see `caffemodel.write`.

    The fourth blob of BN is written as it is in `weights`: convert it first (`as_variance`, `as_inverse_std`) if the
    fork uses the other statistic. With `force` an existing file is overwritten.
    """
    caffemodel.write(path, _new_layers(analysis, weights, dialect), analysis.net.name, force=force)


def _new_layers(analysis: Analysis, weights: Weights, dialect: Dialect) -> Iterator[NewLayer]:
    from prototxt_gen.net.to_protobuf import encoded_params

    for row in analysis.rows:
        layer = row.layer
        layer_type = layers.find_layer_type(layer.type)
        roles = weights.of(layer.name)
        arrays = [np.asarray(roles[role], order="C") for role in _roles_in_file_order(row, roles)] if layer_type else []
        bottoms, tops = [v.blob for v in layer.bottoms], [v.blob for v in layer.tops]
        yield NewLayer(layer.name, layer.type, arrays, bottoms, tops, None, encoded_params(layer, dialect))


def _roles_in_file_order(row: Row, roles: Mapping[str, Array]) -> list[str]:
    """Return the roles of a layer in the order of a .caffemodel; the fourth of BN may have either name.

    Roles that the net does not show come last: the built-in scale and bias of BatchNorm in Intel Caffe and NVCaffe.
    """
    named = [role if role in roles else "variance" for role in row.blobs if role in roles or role == "inverse_std"]
    return named + [role for role in roles if role not in named]


def as_inverse_std(weights: Weights, analysis: Analysis) -> Weights:
    """Return the weights with the fourth blob of each BN as 1/sqrt(variance + eps), converted from the variance."""
    return _with_other_statistic(weights, analysis, "variance", "inverse_std")


def as_variance(weights: Weights, analysis: Analysis) -> Weights:
    """Return the weights with the fourth blob of each BN as variance, at least 0, converted from inverse_std."""
    return _with_other_statistic(weights, analysis, "inverse_std", "variance")


def _with_other_statistic(weights: Weights, analysis: Analysis, old: str, new: str) -> Weights:
    from prototxt_gen.layers.normalization.bn import BNParameter

    blobs = dict(weights.blobs)
    for row in analysis.rows:
        roles = blobs.get(row.layer.name, {})
        if row.layer.type == "BN" and old in roles:
            eps, fourth = row.layer.get(BNParameter).eps, roles[old].astype("float64")
            with np.errstate(all="ignore"):  # NaN and infinities are kept
                value = 1 / np.sqrt(fourth + eps) if new == "inverse_std" else _variance(row.layer, fourth, eps)
                kept = {role: array for role, array in roles.items() if role != old}
                blobs[row.layer.name] = kept | {new: value.astype("float32")}
    return Weights(blobs, weights.source, weights.remarks)


def _variance(layer: Layer, inverse: Array, eps: float) -> Array:
    """Return the variances. Raises WeightsError for an inverse standard deviation above 1/sqrt(eps)."""
    largest = eps**-0.5 if eps else np.inf
    if (inverse > largest * (1 + 1e-6)).any():
        raise WeightsError(
            f"{layer_label(layer)}: an inverse standard deviation is {np.nanmax(inverse):g}, but with eps {eps:g} "
            f"it can be at most {largest:g}"
        )
    variance: Array = np.maximum(inverse**-2 - eps, 0)
    return variance
