"""Constructors of torch.nn modules as Python source, such as `nn.Conv2d(3, 64, 7, stride=2)`."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from converters.pytorch_export.trace_to_source import python_literal

_BATCH_NORMS = {2: "BatchNorm1d", 3: "BatchNorm1d", 4: "BatchNorm2d", 5: "BatchNorm3d"}


def nn_constructor(module: nn.Module, axes: int) -> str | None:
    """Return the constructor call of a module that torch.nn has; None for any other module.

    `axes`: number of axes of the bottom. Our batch normalisation modules that differ in training only are written as
    the class of torch.nn, which computes the same in the TEST phase.
    """
    if isinstance(module, _BatchNorm) and axes in _BATCH_NORMS:
        return _batch_norm_constructor(module, axes)
    class_ = nn_class(module)
    if class_ is None:
        return None
    if class_ is nn.Sequential:
        children = [nn_constructor(child, axes) for child in module.children()]
        return None if None in children else f"nn.Sequential({', '.join(map(str, children))})"
    return _constructor_call(module, class_)


def nn_class(module: nn.Module) -> type[nn.Module] | None:
    """Return the torch.nn class that computes the same as a module: its class, or a base with the same `forward`."""
    for base in type(module).__mro__:
        if base.__module__.startswith("torch.nn.") and base is not nn.Module:
            forward = getattr(type(module), "forward", None)
            is_called_per_bottom = getattr(forward, "__qualname__", "").startswith("per_bottom.")
            return base if is_called_per_bottom or forward is getattr(base, "forward", None) else None
    return None


def _batch_norm_constructor(module: Any, axes: int) -> str | None:
    """Return the constructor of a batch normalisation; None if torch.nn has no equal one."""
    statistics = getattr(module, "statistics", "phase")
    if statistics == "batch" or not getattr(module, "is_torch_batch_norm", True):
        return None
    arguments = [str(module.num_features)] + ([f"eps={module.eps!r}"] if module.eps != 1e-5 else [])
    momentum = 1 - getattr(module, "old_share", 1 - module.momentum if module.momentum else 0.9)
    if hasattr(module, "fraction"):
        momentum = 1 - module.fraction
    arguments += [f"momentum={round(momentum, 9)!r}"] if round(momentum, 9) != 0.1 else []
    arguments += [] if module.affine else ["affine=False"]
    return f"nn.{_BATCH_NORMS[axes]}({', '.join(arguments)})"


def _constructor_call(module: nn.Module, class_: type[nn.Module]) -> str:
    """Return the constructor call; each argument is the module's attribute of the same name."""
    texts, positional = [], True
    for name, parameter in inspect.signature(class_.__init__).parameters.items():
        if name in ("self", "device", "dtype") or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        value = _argument_value(module, name)
        if value is inspect.Parameter.empty or value == parameter.default:
            positional = False
            continue
        required = parameter.default is inspect.Parameter.empty
        texts.append(python_literal(value) if positional and required else f"{name}={python_literal(value)}")
        positional = positional and required
    return f"nn.{class_.__name__}({', '.join(texts)})"


def _argument_value(module: nn.Module, name: str) -> Any:
    """Return the value of a constructor argument; `inspect.Parameter.empty` if it is not to be written."""
    if name == "bias" and "bias" in module._parameters:
        return module.bias is not None
    if name in ("init", "_weight", "_freeze"):
        return inspect.Parameter.empty
    value = getattr(module, name, inspect.Parameter.empty)
    has_window = hasattr(module, "kernel_size")  # one number then sets all axes
    return value[0] if has_window and isinstance(value, tuple) and len(set(value)) == 1 else value
