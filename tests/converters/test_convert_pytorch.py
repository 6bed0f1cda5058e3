"""PyTorch as it is written: layers that share blobs share a tensor where both lay it out alike; and .pt2 files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from converters import read_subject, to_torch
from converters.pytorch_export.call_trace import UntraceableError, trace
from converters.pytorch_export.output_files import load_folder, run_module
from converters.verification.blob_comparison import difference
from converters.verification.comparison_inputs import seeded
from converters.verification.runtimes import run_onnx, run_torch
from converters.write_models import write_torch
from prototxt_gen import analyse, layers, parse_net
from prototxt_gen.cli import cli
from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Net
from prototxt_gen.schema.dialect import dialect
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
    write(folder / "net.caffemodel", analysis, sane_weights(analysis), dialect("bvlc"))
    return folder / "net.prototxt", folder / "net.caffemodel"


@pytest.mark.parametrize("text", [SIAMESE, AUTOENCODER])
def test_each_form_has_the_numbers_read_last(text: str, tmp_path: Path) -> None:
    """A file holds a copy for each layer that shares; they differ here, and the last one counts, as in Caffe."""
    there = files(tmp_path, text)
    one = read_subject(*there)
    to_torch(*there, tmp_path / "made")
    inputs, output = seeded(one), one.net.outputs[-1].blob
    expected = run_torch(one, inputs)[output]
    assert difference(expected, run_onnx(one, inputs)[output])[0] < 1e-6
    assert difference(expected, run_module(one, load_folder(tmp_path / "made"), inputs)[output])[0] < 1e-6


def test_the_folder_learns_shared_blobs_as_one(tmp_path: Path) -> None:
    to_torch(*files(tmp_path, SIAMESE), tmp_path / "made")
    made: Any = load_folder(tmp_path / "made")
    assert made.left.conv.weight is made.right.conv.weight
    assert made.left.conv.bias is made.right.conv.bias
    assert made.ip[1].weight is made.ip_p[1].weight


def test_a_name_that_ends_in_pt2_asks_for_one(tmp_path: Path) -> None:
    arguments = ["convert", "pytorch", *map(str, files(tmp_path, AUTOENCODER)), "-o", str(tmp_path / "it.pt2")]
    made = CliRunner().invoke(cli, arguments)
    assert made.exit_code == 0, made.output
    assert (tmp_path / "it.pt2").is_file()


def test_a_pt2_of_what_sizes_itself_is_refused(tmp_path: Path) -> None:
    """One sentence that names the layer, and the form that can."""
    layer_type = layers.all_layer_types()["DetectionOutput"]
    one = read_subject(parse_net(golden.prototxt(layer_type, layer_type.examples[0])), Weights({}))
    with pytest.raises(UnsupportedError, match=r"\(DetectionOutput\) gives out .*; the folder form can"):
        write_torch(one, tmp_path / "it.pt2", "pt2")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("shape", "axis"), [((2, 3), 1), ((3, 6, 6), 0), ((2, 3, 4, 6, 5), 2)])
def test_a_module_within_a_module_is_written(shape: tuple[int, ...], axis: int, tmp_path: Path) -> None:
    """Channels at other axes are seen by a stock convolution that a module of ours holds."""
    kernel = "" if len(shape) == 2 else "kernel_size: 3"
    dims = " ".join(f"dim: {dim}" for dim in shape)
    text = f"""input: "data" input_shape {{ {dims} }}
layer {{ name: "c" type: "Convolution" bottom: "data" top: "c"
  convolution_param {{ num_output: 2 axis: {axis} {kernel} }} }}"""
    done = write_torch(read_subject(*files(tmp_path, text)), tmp_path / "net")
    assert done.report is not None and done.report.verified


@pytest.mark.parametrize("act", [
    lambda x: x[x > 0].sum(),
    lambda x: x[0, x[0] > 0].sum(),
    lambda x: (x > 0).nonzero().shape[0] * x,
    lambda x: torch.where(x > 0)[0].shape[0] * x,
    lambda x: torch.masked_select(x, x > 0).mean(),
])  # fmt: skip
def test_what_goes_by_the_numbers_is_not_traced(act: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """A size that the numbers of one run have would be written down for all."""

    class Act(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return act(x)

    with pytest.raises(UntraceableError):
        trace(Act(), [(2, 6)], ())
