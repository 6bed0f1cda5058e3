"""Weights: the learned arrays of a net, by layer and role, checked against what the net's layers ask for.

The structure comes from the prototxt and the numbers from the binary; where the two differ, one report says how.
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
from prototxt_gen.weights.blob_matching import fitted, who

Array = np.ndarray[Any, Any]
STATISTICS = ("inverse_std", "variance")
"""The two meanings of the fourth blob of the merged BN: 1/sqrt(var+eps), or the variance itself."""
_V1_BN_NUMBERS = {43: "happynear", 211: "brocolli"}


@dataclass(frozen=True)
class Weights:
    """`{layer: {role: float32 array}}`. The role of BN's fourth blob is its meaning, `inverse_std` or `variance`.

    `remarks` are sentences for the user: what the file holds that the net does not ask for, and the like.
    """

    blobs: Mapping[str, Mapping[str, Array]]
    source: str = ""
    remarks: tuple[str, ...] = field(default=(), compare=False)

    def of(self, layer: str) -> Mapping[str, Array]:
        """Return a layer's arrays by role; none where the layer learns nothing."""
        return self.blobs.get(layer, {})


def told_dialect(model: CaffeModel) -> list[Dialect]:
    """Return the forks that may have written a file, told by the field numbers of its BN and Interp layers.

    An empty list where no layer tells, or where they contradict each other.
    """
    told = [found for layer in model.layers if (found := _tellers(layer))]
    return [fork for fork in DIALECTS.values() if told and all(fork in found for found in told)]


def _tellers(layer: StoredLayer) -> list[Dialect]:
    name = {"BN": "bn_param", "Interp": "interp_param"}.get(layer.type)
    if name is None or not layer.fields:
        return []
    table = {d: {number} for d in DIALECTS.values() if (number := d.number(name)) is not None}
    for number, fork in _V1_BN_NUMBERS.items():
        if layer.version == "V1" and name == "bn_param":
            table[DIALECTS[fork]].add(number)
    return [fork for fork, numbers in table.items() if numbers & layer.fields]


def statistic_of(model: CaffeModel, dialect: str | None, statistic: str | None) -> str:
    """Return what BN's fourth blob means in this file: as the caller says ("inverse-std" is as good), else as the
    fork has it.

    WeightsError where neither tells: a wrong guess gives a net that runs and is wrong.
    """
    if statistic is not None:
        if statistic.replace("-", "_") not in STATISTICS:
            raise WeightsError(f"a BN statistic is one of {', '.join(STATISTICS)}, not {statistic!r}")
        return statistic.replace("-", "_")
    from prototxt_gen.schema.dialect import dialect as named

    forks = [named(dialect)] if dialect else told_dialect(model)
    meanings = {fork.bn_statistic for fork in forks}
    if len(meanings) == 1 and meanings != {""}:
        return meanings.pop()
    names = ", ".join(fork.name for fork in forks)
    raise WeightsError(
        f"{model.path}: what the fourth blob of its BN layers means cannot be told "
        f"({f'fork {names} has both' if forks else 'no layer tells the fork'}): "
        "give --bn-statistic inverse-std or variance"
    )


def read(
    path: str | PathLike[str], analysis: Analysis, dialect: str | None = None, statistic: str | None = None
) -> Weights:
    """Read a .caffemodel or .caffemodel.h5 for a net whose shapes are known; views of the mapped file, no copies.

    Raises WeightsError, all faults in one report, where blobs are missing, superfluous or of another shape.
    """
    model = caffemodel.read(path)
    stored: dict[str, list[StoredLayer]] = {}
    for layer in model.layers:
        stored.setdefault(layer.name, []).append(layer)
    faults: list[str] = []
    made: dict[str, dict[str, Array]] = {}
    for row in analysis.rows:
        if row.blobs and row.layer.name in made:
            faults.append(f"{who(row.layer)}: an earlier layer has its name, and Caffe gives that one the weights")
        elif row.blobs:
            made[row.layer.name] = fitted(row, stored.get(row.layer.name, []), faults)
        elif row.known:  # a layer that learns nothing may have nothing
            fitted(row, stored.get(row.layer.name, []), faults)
    _share(analysis, stored, made)
    faults += _missing(analysis, stored, made)
    if faults:
        listed = "".join(f"\n  {fault}" for fault in faults)
        raise WeightsError(f"{fspath(path)} does not fit {analysis.net.source or analysis.net.name}:{listed}")
    if any(_has_fourth(roles) for roles in made.values()):
        meaning = statistic_of(model, dialect, statistic)
        if meaning == "inverse_std":
            _refuse_impossible(fspath(path), made)
        made = {name: _meant(roles, meaning) for name, roles in made.items()}
    return Weights(made, fspath(path), tuple(_remarks(stored, analysis)))


def _has_fourth(roles: Mapping[str, Array]) -> bool:
    return "inverse_std" in roles


def _refuse_impossible(path: str, made: Mapping[str, Mapping[str, Array]]) -> None:
    odd = [name for name, roles in made.items() if _has_fourth(roles) and _is_impossible(roles["inverse_std"])]
    if odd:
        more = f" and {len(odd) - 1} more layers" if len(odd) > 1 else ""
        raise WeightsError(
            f"{path}: layer {odd[0]!r} (BN){more}: its fourth blob, taken for inverse standard deviations, has numbers "
            f"below 0 or beyond {_MOST_INVERSE:g}"
        )


_MOST_INVERSE = 1e18
"""The variance plus eps of a greater one is no float32."""


def _is_impossible(inverse: Array) -> bool:
    return bool(((inverse < 0) | ((inverse > _MOST_INVERSE) & np.isfinite(inverse))).any())


def _meant(roles: dict[str, Array], meaning: str) -> dict[str, Array]:
    return {meaning if role == "inverse_std" else role: array for role, array in roles.items()}


Stored = Mapping[str, Sequence[StoredLayer]]  # the file's layers by name


def _share(analysis: Analysis, stored: Stored, made: dict[str, dict[str, Array]]) -> None:
    """Give all blobs of one name the numbers that count."""
    order = {(name, role): stored[name][-1].index for name, roles in made.items() for role in roles}
    shapes = {(row.layer.name, role): spec.shape for row in analysis.rows for role, spec in row.blobs.items()}
    for place, source in shared_parameters.resolved(analysis.rows, order).items():
        made[place[0]][place[1]] = made[source[0]][source[1]].reshape(shapes[place])
    for row in analysis.rows:  # one not in the file came last, and layer types go by the order of roles
        if (found := made.get(row.layer.name, {})).keys() == row.blobs.keys():
            made[row.layer.name] = {role: found[role] for role in row.blobs}


def _missing(analysis: Analysis, stored: Stored, made: Mapping[str, Mapping[str, Array]]) -> Iterator[str]:
    """Yield a sentence for each layer that gets no numbers for some of its blobs."""
    for row in analysis.rows:
        found = made.get(row.layer.name, {})
        told = not found and any(one.blobs for one in stored.get(row.layer.name, ()))
        without = [role for role in row.blobs if role not in found]
        if without and not told and found.keys() <= row.blobs.keys():
            yield f"{who(row.layer)}: no weights for its {', '.join(without)}"


_MOST_NAMED = 5


def _remarks(stored: Mapping[str, Sequence[StoredLayer]], analysis: Analysis) -> Iterator[str]:
    asked = {row.layer.name for row in analysis.rows if row.blobs}
    spare = [name for name, found in stored.items() if name not in asked and any(layer.blobs for layer in found)]
    if spare:
        more = f" and {len(spare) - _MOST_NAMED} more" if len(spare) > _MOST_NAMED else ""
        yield f"the file has weights that the net does not ask for: {', '.join(map(repr, spare[:_MOST_NAMED]))}{more}"
    for name, found in stored.items():
        if len([layer for layer in found if layer.blobs]) > 1 and name in asked:
            yield f"layer {name!r}: the file has it more than once; the last one counts, as in Caffe"


def write(
    path: str | PathLike[str], analysis: Analysis, weights: Weights, dialect: Dialect, force: bool = False
) -> None:
    """Write a .caffemodel in a fork's numbers, each layer with its parameters; see `caffemodel.write`.

    The statistic of BN is written as the weights hold it: convert it first where the fork means another.
    """
    caffemodel.write(path, _new_layers(analysis, weights, dialect), analysis.net.name, force=force)


def _new_layers(analysis: Analysis, weights: Weights, dialect: Dialect) -> Iterator[NewLayer]:
    from prototxt_gen.net.to_protobuf import encoded_params

    for row in analysis.rows:
        layer = row.layer
        layer_type = layers.find_layer_type(layer.type)
        roles = weights.of(layer.name)
        arrays = [np.asarray(roles[role], order="C") for role in _order(row, roles)] if layer_type else []
        bottoms, tops = [v.blob for v in layer.bottoms], [v.blob for v in layer.tops]
        yield NewLayer(layer.name, layer.type, arrays, bottoms, tops, None, encoded_params(layer, dialect))


def _order(row: Row, roles: Mapping[str, Array]) -> list[str]:
    """Return the roles in the order of the .caffemodel; BN's fourth goes by either name.

    Behind them come those that the file alone showed: the scale and bias of a BatchNorm, where Intel and NVCaffe have
    them.
    """
    named = [role if role in roles else "variance" for role in row.blobs if role in roles or role == "inverse_std"]
    return named + [role for role in roles if role not in named]


def as_inverse_std(weights: Weights, analysis: Analysis) -> Weights:
    """Return the weights with every BN's fourth blob as 1/sqrt(var+eps), whatever it was."""
    return _converted(weights, analysis, "variance", "inverse_std")


def as_variance(weights: Weights, analysis: Analysis) -> Weights:
    """Return the weights with every BN's fourth blob as the variance, whatever it was; never below 0."""
    return _converted(weights, analysis, "inverse_std", "variance")


def _converted(weights: Weights, analysis: Analysis, old: str, new: str) -> Weights:
    from prototxt_gen.layers.normalization.bn import BNParameter

    made = dict(weights.blobs)
    for row in analysis.rows:
        blobs = made.get(row.layer.name, {})
        if row.layer.type == "BN" and old in blobs:
            eps, fourth = row.layer.get(BNParameter).eps, blobs[old].astype("float64")
            with np.errstate(all="ignore"):  # NaN and infinities are carried
                value = 1 / np.sqrt(fourth + eps) if new == "inverse_std" else _variance(row.layer, fourth, eps)
                kept = {role: array for role, array in blobs.items() if role != old}
                made[row.layer.name] = kept | {new: value.astype("float32")}
    return Weights(made, weights.source, weights.remarks)


def _variance(layer: Layer, inverse: Array, eps: float) -> Array:
    """Return variances; WeightsError where an inverse standard deviation is more than a variance of 0 gives."""
    most = eps**-0.5 if eps else np.inf
    if (inverse > most * (1 + 1e-6)).any():
        raise WeightsError(
            f"{who(layer)}: an inverse standard deviation of {np.nanmax(inverse):g}: with its eps of {eps:g} no "
            f"variance gives more than {most:g}"
        )
    made: Array = np.maximum(inverse**-2 - eps, 0)
    return made
