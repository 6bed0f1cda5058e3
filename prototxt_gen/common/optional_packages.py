"""Packages that only some uses need: what they are called, and which extra of this package installs each."""

from __future__ import annotations

from importlib.util import find_spec

from prototxt_gen.common.errors import RuntimeMissingError

EXTRAS = {
    "torch": ("PyTorch", "torch"),
    "safetensors": ("safetensors", "torch"),
    "onnx": ("ONNX", "onnx"),
    "onnxruntime": ("ONNX Runtime", "onnx"),
    "h5py": ("h5py", "data"),
    "lmdb": ("lmdb", "data"),
    "cv2": ("OpenCV", "data"),
    "PIL": ("Pillow", "train"),
    "matplotlib": ("Matplotlib", "train"),
    "pydot": ("pydot", "draw"),
    "netron": ("Netron", "draw"),
}
"""By the name that is imported."""


def missing(package: str) -> RuntimeMissingError:
    """Return the error for one of EXTRAS that is not installed."""
    name, extra = EXTRAS[package]
    return RuntimeMissingError(f"{name} is not installed: pip install 'prototxt-gen[{extra}]'")


def need(*packages: str) -> None:
    """Raise RuntimeMissingError for the first of these that is not installed."""
    for package in packages:
        if find_spec(package) is None:
            raise missing(package)
