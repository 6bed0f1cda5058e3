"""Solvers: the paper's recipes, each number overridable.

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


OF_POLICY = ("gamma", "stepvalue")
"""What belongs to the recipes' rate policy, and goes with it."""


def solver(recipe: str, net: str, snapshot_prefix: str, **changes: Any) -> SolverParameter:
    """Return the solver of a recipe for a train_val file, with any of its fields changed."""
    if recipe not in RECIPES:
        raise NetError(f"there is no recipe {recipe!r}; there are {', '.join(RECIPES)}{nearest(recipe, RECIPES)}")
    common = {"display": 100, "snapshot": 10_000, "snapshot_prefix": snapshot_prefix, "solver_mode": "GPU"}
    own = RECIPES[recipe]
    if changes.get("lr_policy", own["lr_policy"]) != own["lr_policy"]:
        own = {name: value for name, value in own.items() if name not in OF_POLICY}
    return SolverParameter(**({"net": net} | own | common | changes))
