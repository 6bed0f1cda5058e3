"""Optional packages: their names, and the extra of prototxt-gen that installs each of them."""

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
"""Name and extra of each package, by its import name."""


def missing(package: str) -> RuntimeMissingError:
    """Return the RuntimeMissingError for one of EXTRAS, with the command that installs it."""
    name, extra = EXTRAS[package]
    return RuntimeMissingError(f"{name} is not installed: pip install 'prototxt-gen[{extra}]'")


def need(*packages: str) -> None:
    """Raise RuntimeMissingError for the first of these packages that is not installed."""
    for package in packages:
        if find_spec(package) is None:
            raise missing(package)
