"""The model zoo: named nets, each a `ResidualNet`. A variant is a named net with some options changed."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from prototxt_gen.common.errors import NetError, nearest
from prototxt_gen.ir import Net
from prototxt_gen.models.model_files import ZooModel
from prototxt_gen.models.residual_nets import ResidualNet
from prototxt_gen.passes.to_train_val import DataOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from prototxt_gen.models.option_types import ModelOptions, NetOptions

_RESNEXT: dict[str, Any] = {"unit": "resnext"}
_CIFAR: dict[str, Any] = {"width": 14, "stem": "cifar", "input_size": 32, "classes": 10}
_WITHOUT_ATTENTION: dict[str, Any] = {"modules": (), "units": (2, 3, 5, 2)}
RECONSTRUCTED = "The paper does not give this net's widths: they are reconstructed so that parameter counts come near."


def _cifar_net(depth: int, modules: int) -> ResidualNet:
    return ResidualNet(f"Attention-{depth}-CIFAR", modules=(modules,) * 3, **_CIFAR, note=RECONSTRUCTED)


ZOO: dict[str, ResidualNet] = {
    "attention-56": ResidualNet("Attention-56"),
    "attention-92": ResidualNet("Attention-92", modules=(1, 2, 3)),
    "attentionnext-56": ResidualNet("AttentionNeXt-56", **_RESNEXT),
    "attentionnext-92": ResidualNet("AttentionNeXt-92", modules=(1, 2, 3), **_RESNEXT),
    **{
        f"attention-{depth}-cifar": _cifar_net(depth, modules)
        for depth, modules in ((56, 1), (92, 2), (128, 3), (164, 4), (236, 6), (452, 12))
    },
    "resnet-50": ResidualNet("ResNet-50", unit="resnet", **_WITHOUT_ATTENTION),
    "resnext-50": ResidualNet("ResNeXt-50", **_RESNEXT, **_WITHOUT_ATTENTION),
}


GENERATED = [name for name in ZOO if name.startswith("attention")]
"""Names of the nets whose files are in the folder `generated/` of the repository."""

_DATA_OPTIONS = {field.name for field in fields(DataOptions)}
_CIFAR_DATA = DataOptions(batch=64, test_batch=25, crop=32, pad=4, mean=(128.0,), kind="python")


def model(name: str, /, solver: dict[str, Any] | None = None, **options: Unpack[ModelOptions]) -> ZooModel:
    """Return a model of the zoo (net, data options and solver), with options changed.

    `options` are fields of `ResidualNet` or `DataOptions`; `solver` are fields of the solver. Raises NetError for an
    unknown name or option.
    """
    changes: dict[str, Any] = dict(options)
    data = {key: changes.pop(key) for key in list(changes) if key in _DATA_OPTIONS and key != "channels"}
    net_config = config(name, **changes)
    is_cifar = net_config.stem == "cifar"
    base = replace(
        _CIFAR_DATA if is_cifar else DataOptions(),
        channels=net_config.channels,
        crop=data.pop("crop", net_config.input_size),
    )
    if net_config.channels != 3 and len(base.mean) > 1:
        base = replace(base, mean=(sum(base.mean) / len(base.mean),))
    return ZooModel(net_config, replace(base, **data), "cifar" if is_cifar else "imagenet", solver or {})


def config(name: str, /, **changes: Any) -> ResidualNet:
    """Return the options of a net of the zoo, some of them changed. Raises NetError for an unknown name or option."""
    if name not in ZOO:
        raise NetError(f"unknown model {name!r}; possible values are {', '.join(ZOO)}{nearest(name, ZOO)}")
    known = [field.name for field in fields(ResidualNet)]
    for change in changes:
        if change not in known:
            raise NetError(f"{name} has no option {change!r}{nearest(change, known)}")
    return replace(ZOO[name], **changes)


def build(name: str, /, **options: Unpack[NetOptions]) -> Net:
    """Return the deploy net of a model of the zoo, with options changed: `build("attention-56", classes=100)`.

    `options` are fields of `ResidualNet`. Raises NetError for an unknown name or option.
    """
    return config(name, **options).build()
