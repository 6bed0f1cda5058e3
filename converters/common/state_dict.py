"""Reading the tensors of a .safetensors file, or of a state_dict in .pt or .pth, without running code from the file."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from converters.common.names import listed_names
from prototxt_gen.common.errors import WeightsError

_MAX_UNPACK_RATIO = 4
"""An archive may unpack to at most this many times the file's size. torch.save does not compress."""
_MAX_MESSAGE_LENGTH = 200
_TORCH_ADVICE = "Check the documentation"


def read_tensors(path: Path, is_safetensors: bool) -> Mapping[str, Any]:
    """Return the tensors of a file by name.

    `is_safetensors`: the file is .safetensors, and otherwise a pickled state_dict, or a dict with the key
    "state_dict". Raises WeightsError if it holds anything but dense tensors of real numbers.
    """
    if is_safetensors:
        from safetensors.torch import load_file

        tensors: Mapping[str, Any] = load_file(path)
        return tensors
    content = _unpickle_safely(path)
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: holds a {type(content).__name__}, not a state_dict")
    inner = content.get("state_dict", content)
    return _checked_tensors(inner if isinstance(inner, dict) else content, path)


def _unpickle_safely(path: Path) -> Any:
    import torch

    _refuse_zip_bomb(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises errors of many classes
        raise WeightsError(f"{path}: not a state_dict that can be read safely: {_first_sentence(error)}") from None


def _refuse_zip_bomb(path: Path) -> None:
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > _MAX_UNPACK_RATIO * path.stat().st_size:
        raise WeightsError(
            f"{path}: its {path.stat().st_size:,} bytes unpack to {unpacked:,}; torch writes no such file"
        )


def _first_sentence(error: Exception) -> str:
    """Return the first sentence of an error of torch.load, without its advice to load the file unsafely."""
    text = str(error).partition("WeightsUnpickler error:")[2] or str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip() and _TORCH_ADVICE not in line]
    if not lines:
        return type(error).__name__
    line = lines[-1] if lines[0].startswith("Weights only load failed") else lines[0]
    return line.split(". ")[0].rstrip(".")[:_MAX_MESSAGE_LENGTH]


def _checked_tensors(values: Mapping[Any, Any], path: Path) -> Mapping[str, Any]:
    """Return the values by name. Raises WeightsError if one is no dense tensor of real numbers."""
    problems = [f"{name!r}: {problem}" for name, value in values.items() if (problem := _problem(value))]
    if problems:
        raise WeightsError(f"{path}: not a state_dict of real numbers: it holds {listed_names(problems)}")
    return {str(name): value for name, value in values.items()}


def _problem(value: Any) -> str:
    """Return why a value is no dense tensor of real numbers: its type or layout. Empty if it is one."""
    import torch

    if not isinstance(value, torch.Tensor):
        return type(value).__name__
    if value.is_complex() or value.is_quantized:
        return str(value.dtype)
    if value.is_nested or value.layout != torch.strided:
        return "a nested tensor" if value.is_nested else str(value.layout)
    return "a tensor without numbers" if value.is_meta else ""
