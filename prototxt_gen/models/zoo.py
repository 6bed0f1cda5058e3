"""The zoo: named nets, each a `ResidualNet` with its numbers. A variant is a name with some numbers changed."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from prototxt_gen.common.errors import NetError, nearest
from prototxt_gen.ir import Net
from prototxt_gen.models.model_files import Model
from prototxt_gen.models.residual_nets import ResidualNet
from prototxt_gen.passes.to_train_val import Data

_NEXT: dict[str, Any] = {"unit": "resnext"}
_CIFAR: dict[str, Any] = {"width": 14, "stem": "cifar", "input_size": 32, "classes": 10}
_PLAIN: dict[str, Any] = {"modules": (), "units": (2, 3, 5, 2)}
RECONSTRUCTED = "The paper does not give this net's widths: they are reconstructed so that parameter counts come near."


def _cifar(depth: int, modules: int) -> ResidualNet:
    return ResidualNet(f"Attention-{depth}-CIFAR", modules=(modules,) * 3, **_CIFAR, note=RECONSTRUCTED)


ZOO: dict[str, ResidualNet] = {
    "attention-56": ResidualNet("Attention-56"),
    "attention-92": ResidualNet("Attention-92", modules=(1, 2, 3)),
    "attentionnext-56": ResidualNet("AttentionNeXt-56", **_NEXT),
    "attentionnext-92": ResidualNet("AttentionNeXt-92", modules=(1, 2, 3), **_NEXT),
    **{
        f"attention-{depth}-cifar": _cifar(depth, modules)
        for depth, modules in ((56, 1), (92, 2), (128, 3), (164, 4), (236, 6), (452, 12))
    },
    "resnet-50": ResidualNet("ResNet-50", unit="resnet", **_PLAIN),
    "resnext-50": ResidualNet("ResNeXt-50", **_NEXT, **_PLAIN),
}


GENERATED = [name for name in ZOO if name.startswith("attention")]
"""The nets that are committed, ready to use, in `generated/`."""

_DATA = {field.name for field in fields(Data)}
_CIFAR_DATA = Data(batch=64, test_batch=25, crop=32, pad=4, mean=(128.0,), kind="python")


def model(name: str, /, solver: dict[str, Any] | None = None, **changes: Any) -> Model:
    """Return a net of the zoo with its data and its solver, any number of each changed.

    `changes` are fields of `ResidualNet` or of `Data`; `solver` holds fields of the solver.
    """
    data = {key: changes.pop(key) for key in list(changes) if key in _DATA and key != "channels"}
    made = config(name, **changes)
    cifar = made.stem == "cifar"
    base = replace(_CIFAR_DATA if cifar else Data(), channels=made.channels, crop=data.pop("crop", made.input_size))
    if made.channels != 3 and len(base.mean) > 1:
        base = replace(base, mean=(sum(base.mean) / len(base.mean),))
    return Model(made, replace(base, **data), "cifar" if cifar else "imagenet", solver or {})


def config(name: str, /, **changes: Any) -> ResidualNet:
    """Return a net of the zoo with some of its numbers changed; NetError on an unknown name or option."""
    if name not in ZOO:
        raise NetError(f"there is no model {name!r}; there are {', '.join(ZOO)}{nearest(name, ZOO)}")
    known = [field.name for field in fields(ResidualNet)]
    for change in changes:
        if change not in known:
            raise NetError(f"{name} has no option {change!r}{nearest(change, known)}")
    return replace(ZOO[name], **changes)


def build(name: str, /, **changes: Any) -> Net:
    """Return the deploy net of a model of the zoo, any of its numbers changed: `build("attention-56", classes=100)`."""
    return config(name, **changes).build()
