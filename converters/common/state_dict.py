"""The tensors of a .safetensors file, or of a state_dict in .pt or .pth, read without running what may be in it."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prototxt_gen.common.errors import WeightsError

MOST_NAMED = 5
_MOST_UNPACKED = 4
"""How many times a file's size its archive may unpack to: torch compresses nothing."""
_MOST_TOLD = 200
_ADVICE = "Check the documentation"


def tensors_of(path: Path, is_safetensors: bool) -> Mapping[str, Any]:
    """Return the tensors by name; WeightsError where there are others than dense ones of real numbers."""
    if is_safetensors:
        from safetensors.torch import load_file

        tensors: Mapping[str, Any] = load_file(path)
        return tensors
    found = _unpickled(path)
    if not isinstance(found, dict):
        raise WeightsError(f"{path}: holds a {type(found).__name__}, not a state_dict")
    inner = found.get("state_dict", found)
    return _plain(inner if isinstance(inner, dict) else found, path)


def _unpickled(path: Path) -> Any:
    import torch

    _refuse_bombs(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever its unpickler meets
        raise WeightsError(f"{path}: not a state_dict that can be read safely: {_said(error)}") from None


def _refuse_bombs(path: Path) -> None:
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > _MOST_UNPACKED * path.stat().st_size:
        raise WeightsError(
            f"{path}: its {path.stat().st_size:,} bytes unpack to {unpacked:,}; torch writes no such file"
        )


def _said(error: Exception) -> str:
    """Return the first sentence of what went wrong, without torch's advice to load the file unsafely."""
    text = str(error).partition("WeightsUnpickler error:")[2] or str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip() and _ADVICE not in line]
    if not lines:
        return type(error).__name__
    told = lines[-1] if lines[0].startswith("Weights only load failed") else lines[0]
    return told.split(". ")[0].rstrip(".")[:_MOST_TOLD]


def _plain(tensors: Mapping[Any, Any], path: Path) -> Mapping[str, Any]:
    odd = [f"{name!r}: {kind}" for name, value in tensors.items() if (kind := _oddness(value))]
    if odd:
        more = f" and {len(odd) - MOST_NAMED} more" if len(odd) > MOST_NAMED else ""
        raise WeightsError(f"{path}: not a state_dict of real numbers: it holds {', '.join(odd[:MOST_NAMED])}{more}")
    return {str(name): value for name, value in tensors.items()}


def _oddness(value: Any) -> str:
    """Return what is not plain about a value, or an empty text for a dense tensor of real numbers."""
    import torch

    if not isinstance(value, torch.Tensor):
        return type(value).__name__
    if value.is_complex() or value.is_quantized:
        return str(value.dtype)
    if value.is_nested or value.layout != torch.strided:
        return "a nested tensor" if value.is_nested else str(value.layout)
    return "a tensor without numbers" if value.is_meta else ""
