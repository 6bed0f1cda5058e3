"""The Python that makes a module of torch.nn: its class and arguments."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from converters.pytorch_export.trace_to_source import literal

_BATCH_NORMS = {2: "BatchNorm1d", 3: "BatchNorm1d", 4: "BatchNorm2d", 5: "BatchNorm3d"}


def stock_expression(module: nn.Module, axes: int) -> str | None:
    """Return `nn.Conv2d(3, 64, 7, stride=2)` for a module that torch.nn has; None for one of ours.

    `axes` is the number of axes of its bottom. Where a class of ours only changes how batch normalisation learns, the
    stock class stands for it; in the TEST phase they are the same.
    """
    if isinstance(module, _BatchNorm) and axes in _BATCH_NORMS:
        return _batch_norm(module, axes)
    stock = stock_class(module)
    if stock is None:
        return None
    if stock is nn.Sequential:
        inner = [stock_expression(child, axes) for child in module.children()]
        return None if None in inner else f"nn.Sequential({', '.join(str(one) for one in inner)})"
    return _constructor(module, stock)


def stock_class(module: nn.Module) -> type[nn.Module] | None:
    """Return the class of torch.nn that a module computes as: its own, or the one whose `forward` it has."""
    for base in type(module).__mro__:
        if base.__module__.startswith("torch.nn.") and base is not nn.Module:
            own, theirs = getattr(type(module), "forward", None), getattr(base, "forward", None)
            several = getattr(own, "__qualname__", "").startswith("per_bottom.")
            return base if several or own is theirs else None
    return None


def _batch_norm(module: Any, axes: int) -> str | None:
    statistics = getattr(module, "statistics", "phase")
    if statistics == "batch" or not getattr(module, "is_torch_batch_norm", True):
        return None
    arguments = [str(module.num_features)] + ([f"eps={module.eps!r}"] if module.eps != 1e-5 else [])
    share = 1 - getattr(module, "old_share", 1 - module.momentum if module.momentum else 0.9)
    if hasattr(module, "fraction"):
        share = 1 - module.fraction
    arguments += [f"momentum={round(share, 9)!r}"] if round(share, 9) != 0.1 else []
    arguments += [] if module.affine else ["affine=False"]
    return f"nn.{_BATCH_NORMS[axes]}({', '.join(arguments)})"


def _constructor(module: nn.Module, stock: type[nn.Module]) -> str:
    """Write the call of the constructor, each argument read off the attribute of its name."""
    texts, positional = [], True
    for name, parameter in inspect.signature(stock.__init__).parameters.items():
        if name in ("self", "device", "dtype") or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        value = _attribute(module, name)
        if value is inspect.Parameter.empty or value == parameter.default:
            positional = False
            continue
        required = parameter.default is inspect.Parameter.empty
        texts.append(literal(value) if positional and required else f"{name}={literal(value)}")
        positional = positional and required
    return f"nn.{stock.__name__}({', '.join(texts)})"


def _attribute(module: nn.Module, name: str) -> Any:
    if name == "bias" and "bias" in module._parameters:
        return module.bias is not None
    if name in ("init", "_weight", "_freeze"):
        return inspect.Parameter.empty
    value = getattr(module, name, inspect.Parameter.empty)
    windowed = hasattr(module, "kernel_size")  # there, one number stands for as many
    return value[0] if windowed and isinstance(value, tuple) and len(set(value)) == 1 else value
