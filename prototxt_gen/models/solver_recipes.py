"""Training recipes of the paper as solvers, whose fields can be changed.

Source: Wang et al., CVPR 2017, sections 4.1 and 4.2.
"""

from __future__ import annotations

from typing import Any

from prototxt_gen.common.errors import NetError, nearest
from prototxt_gen.schema.caffe_proto import SolverParameter

_SGD = {
    "type": "Nesterov",
    "base_lr": 0.1,
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "lr_policy": "multistep",
    "gamma": 0.1,
}

RECIPES: dict[str, dict[str, Any]] = {
    "imagenet": _SGD
    | {"stepvalue": (200_000, 400_000, 500_000), "max_iter": 530_000, "test_iter": 2_000, "test_interval": 5_000},
    "cifar": _SGD | {"stepvalue": (64_000, 96_000), "max_iter": 160_000, "test_iter": 400, "test_interval": 1_000},
}


_LR_POLICY_FIELDS = ("gamma", "stepvalue")
"""Fields that belong to the lr_policy of the recipes, and are left out with another lr_policy."""


def recipe_solver(recipe: str, net: str, snapshot_prefix: str, **changes: Any) -> SolverParameter:
    """Return the solver of a recipe for the train_val file `net`; `changes` are fields that overrule the recipe.

    Raises NetError for an unknown recipe.
    """
    if recipe not in RECIPES:
        known = f"possible values are {', '.join(RECIPES)}{nearest(recipe, RECIPES)}"
        raise NetError(f"unknown recipe {recipe!r}; {known}")
    common = {"display": 100, "snapshot": 10_000, "snapshot_prefix": snapshot_prefix, "solver_mode": "GPU"}
    fields = RECIPES[recipe]
    if changes.get("lr_policy", fields["lr_policy"]) != fields["lr_policy"]:
        fields = {name: value for name, value in fields.items() if name not in _LR_POLICY_FIELDS}
    return SolverParameter(**({"net": net} | fields | common | changes))
