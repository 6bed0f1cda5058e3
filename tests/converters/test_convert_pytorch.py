"""PyTorch exports: shared blobs, .pt2 files, inner modules, and modules that cannot be traced."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from converters import read_net_with_weights, to_torch
from converters.pytorch_export.call_trace import UntraceableError, trace_calls
from converters.pytorch_export.output_files import load_folder, run_module
from converters.verification.blob_comparison import difference
from converters.verification.comparison_inputs import seeded_inputs
from converters.verification.runtimes import convert_and_run_onnx, run_torch
from converters.write_models import write_torch
from prototxt_gen import analyse, layers, parse_net
from prototxt_gen.cli import cli
from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Net
from prototxt_gen.schema.dialect import find_dialect
from prototxt_gen.weights import Weights, write
from tests import golden
from tests.support.sane_weights import sane_weights

CONVOLUTION = "convolution_param { num_output: 4 kernel_size: 3 }"
SIAMESE = f"""name: "siamese"
input: "a" input_shape {{ dim: 1 dim: 3 dim: 6 dim: 6 }}
input: "b" input_shape {{ dim: 1 dim: 3 dim: 6 dim: 6 }}
layer {{ name: "left/conv" type: "Convolution" bottom: "a" top: "l" param {{ name: "w" }} param {{ name: "c" }}
  {CONVOLUTION} }}
layer {{ name: "right/conv" type: "Convolution" bottom: "b" top: "r" param {{ name: "w" }} param {{ name: "c" }}
  {CONVOLUTION} }}
layer {{ name: "ip" type: "InnerProduct" bottom: "l" top: "x" param {{ name: "i" }}
  inner_product_param {{ num_output: 5 bias_term: false }} }}
layer {{ name: "ip_p" type: "InnerProduct" bottom: "r" top: "y" param {{ name: "i" }}
  inner_product_param {{ num_output: 5 bias_term: false }} }}
layer {{ name: "gap" type: "Eltwise" bottom: "x" bottom: "y" top: "gap" eltwise_param {{ coeff: 1 coeff: -1 }} }}
"""
AUTOENCODER = """name: "autoencoder"
input: "a" input_shape { dim: 2 dim: 4 }
layer { name: "encode" type: "InnerProduct" bottom: "a" top: "h" param { name: "w" }
  inner_product_param { num_output: 3 } }
layer { name: "decode" type: "InnerProduct" bottom: "h" top: "again" param { name: "w" }
  inner_product_param { num_output: 4 transpose: true } }
"""


def files(folder: Path, text: str) -> tuple[Path, Path]:
    net: Net = parse_net(text)
    analysis = analyse(net)
    (folder / "net.prototxt").write_text(text)
    write(folder / "net.caffemodel", analysis, sane_weights(analysis), find_dialect("bvlc"))
    return folder / "net.prototxt", folder / "net.caffemodel"


@pytest.mark.parametrize("text", [SIAMESE, AUTOENCODER])
def test_shared_blobs_have_the_numbers_of_the_last_layer(text: str, tmp_path: Path) -> None:
    """The file has a copy of the blob for each layer that shares it; as in Caffe, the last one counts."""
    paths = files(tmp_path, text)
    model = read_net_with_weights(*paths)
    to_torch(*paths, tmp_path / "exported")
    inputs, output = seeded_inputs(model), model.net.outputs[-1].blob
    expected = run_torch(model, inputs)[output]
    assert difference(expected, convert_and_run_onnx(model, inputs)[output])[0] < 1e-6
    assert difference(expected, run_module(model, load_folder(tmp_path / "exported"), inputs)[output])[0] < 1e-6


def test_shared_blobs_are_one_parameter_in_the_folder(tmp_path: Path) -> None:
    to_torch(*files(tmp_path, SIAMESE), tmp_path / "exported")
    module: Any = load_folder(tmp_path / "exported")
    assert module.left.conv.weight is module.right.conv.weight
    assert module.left.conv.bias is module.right.conv.bias
    assert module.ip[1].weight is module.ip_p[1].weight


def test_an_output_name_with_pt2_selects_the_pt2_format(tmp_path: Path) -> None:
    arguments = ["convert", "pytorch", *map(str, files(tmp_path, AUTOENCODER)), "-o", str(tmp_path / "it.pt2")]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "it.pt2").is_file()


def test_pt2_of_a_layer_sized_by_data_is_refused(tmp_path: Path) -> None:
    """The error names the layer, and the format that supports it."""
    layer_type = layers.all_layer_types()["DetectionOutput"]
    model = read_net_with_weights(parse_net(golden.prototxt(layer_type, layer_type.examples[0])), Weights({}))
    with pytest.raises(UnsupportedError, match=r"\(DetectionOutput\) gives out .*; the folder format supports it"):
        write_torch(model, tmp_path / "it.pt2", "pt2")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("shape", "axis"), [((2, 3), 1), ((3, 6, 6), 0), ((2, 3, 4, 6, 5), 2)])
def test_a_torch_module_inside_our_module_is_written(shape: tuple[int, ...], axis: int, tmp_path: Path) -> None:
    """A convolution along another channel axis is a module of torch.nn inside a module of ours."""
    kernel = "" if len(shape) == 2 else "kernel_size: 3"
    dims = " ".join(f"dim: {dim}" for dim in shape)
    text = f"""input: "data" input_shape {{ {dims} }}
layer {{ name: "c" type: "Convolution" bottom: "data" top: "c"
  convolution_param {{ num_output: 2 axis: {axis} {kernel} }} }}"""
    result = write_torch(read_net_with_weights(*files(tmp_path, text)), tmp_path / "net")
    assert result.report is not None and result.report.verified


@pytest.mark.parametrize("act", [
    lambda x: x[x > 0].sum(),
    lambda x: x[0, x[0] > 0].sum(),
    lambda x: (x > 0).nonzero().shape[0] * x,
    lambda x: torch.where(x > 0)[0].shape[0] * x,
    lambda x: torch.masked_select(x, x > 0).mean(),
])  # fmt: skip
def test_shapes_that_depend_on_numbers_are_not_traced(act: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """The trace would contain a size that is right for the numbers of one run only."""

    class Act(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return act(x)

    with pytest.raises(UntraceableError):
        trace_calls(Act(), [(2, 6)], ())
