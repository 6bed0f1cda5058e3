"""Each layer type is in a file named as the type, in a family folder of `prototxt_gen.layers`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from prototxt_gen import layers

FAMILIES = {
    "activation",
    "common",
    "data",
    "detection",
    "loss",
    "normalization",
    "ocr",
    "recurrent",
    "utility",
    "vision",
}
"""Folders of layer types: the families of Caffe's layer catalogue, and two families of forks (detection, ocr)."""
FAMILY_FILES = {
    "Add": "add_mul",
    "Mul": "add_mul",
    "ConvolutionDepthwise": "convolution_depthwise",
    "ConvolutionDepthWise": "convolution_depthwise",
    "DepthwiseConvolution": "convolution_depthwise",
    "Lstm": "lstm_ocr",
}
"""Types whose file has another name.

Add and Mul differ in the operator only. Three spellings of the depthwise convolution name one layer. Lstm, of the OCR
forks, would otherwise have the file name of Caffe's LSTM.
"""


def file_of(type_: str) -> Path:
    """Return the file that defines a layer type."""
    module = sys.modules[type(layers.all_layer_types()[type_]).__module__]
    assert module.__file__ is not None
    return Path(module.__file__)


def types_of_the_package() -> list[str]:
    """Return the layer types that are not defined by a plugin or by a test."""
    package = f"{layers.__name__}."
    return sorted(
        t for t, layer_type in layers.all_layer_types().items() if type(layer_type).__module__.startswith(package)
    )


@pytest.mark.parametrize("type_", types_of_the_package())
def test_file_is_named_as_the_type(type_: str) -> None:
    name = file_of(type_).stem
    assert name == FAMILY_FILES[type_] if type_ in FAMILY_FILES else name.replace("_", "") == type_.lower()


@pytest.mark.parametrize("type_", types_of_the_package())
def test_file_is_in_a_family_folder(type_: str) -> None:
    folder = file_of(type_).parent
    assert folder.name in FAMILIES
    assert folder.parent == Path(layers.__file__).parent


def test_table_of_family_files_names_registered_types() -> None:
    assert FAMILY_FILES.keys() <= set(types_of_the_package())
