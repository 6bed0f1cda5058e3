"""Writing of nets as prototxt: real protobuf reads the same net, and a template that changes it is an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format

from prototxt_gen.analysis import top_shapes
from prototxt_gen.common.errors import NetError, PrototxtGenError
from prototxt_gen.ir import Net
from prototxt_gen.net.builder import Builder
from prototxt_gen.net.prototxt_reader import parse_net
from prototxt_gen.net.render import net_text, solver_text
from prototxt_gen.net.to_protobuf import protobuf_classes, to_protobuf
from prototxt_gen.schema.caffe_proto import SolverParameter

TEMPLATES = Path(__file__).parents[2] / "templates"


def small() -> Net:
    b = Builder("small")
    x = b.input("data", (1, 3, 8, 8))
    x = b.add("Convolution", "conv", x, num_output=4, kernel_size=3, weight_filler={"type": "msra"}, bias_term=False)
    x = b.add("ReLU", "relu", x, in_place=True)
    b.add("Pooling", "pool", x, pool="AVE", global_pooling=True)
    return b.build()


def by_protobuf(text: str) -> Any:
    return text_format.Parse(text, protobuf_classes(None)["NetParameter"]())


def test_a_comment_before_each_layer_gives_the_shapes() -> None:
    text = net_text(small())
    assert (
        text
        == """\
name: "small"
input: "data"
input_shape { dim: 1 dim: 3 dim: 8 dim: 8 }

# 1x4x6x6
layer {
  name: "conv"
  type: "Convolution"
  bottom: "data"
  top: "conv"
  convolution_param {
    num_output: 4
    kernel_size: 3
    weight_filler {
      type: "msra"
    }
    bias_term: false
  }
}

# 1x4x6x6
layer {
  name: "relu"
  type: "ReLU"
  bottom: "conv"
  top: "conv"
}

# 1x4x1x1
layer {
  name: "pool"
  type: "Pooling"
  bottom: "conv"
  top: "pool"
  pooling_param {
    pool: AVE
    global_pooling: true
  }
}
"""
    )
    assert by_protobuf(text) == to_protobuf(small())
    assert parse_net(text) == small()


def test_shapes_may_come_from_an_analysis() -> None:
    read = parse_net(net_text(small()))
    assert "#" not in net_text(read)
    assert net_text(read, top_shapes(read)) == net_text(small())


@pytest.mark.parametrize(
    "name",
    ['"quoted"', "back\\slash", "new\nline", "tab\t", "Größe", "层", "a/b:c", "nul\0", "", " ", "\udc80\udcff", "#no"],
)
def test_names_with_any_characters_are_read_back(name: str) -> None:
    b = Builder(name)
    b.add("ReLU", f"layer {name}", b.input(f"blob {name}", (1,)))
    net = b.build()
    assert parse_net(net_text(net)) == net
    assert parse_net(net_text(net).encode("utf-8", "surrogateescape")) == net


UNKNOWN = """
name: "n" mystery: 1 mystery: 2.5 force_backward: true
layer { name: "c" type: "Convolution" bottom: "d" top: "c" convolution_param { num_output: 2 odd { a: X } }
  fork_param { list: [1, 2] text: "t" deep { deeper: -inf } } blobs_lr: 1 phase: NEVER }
"""


def test_unknown_fields_are_written() -> None:
    net = parse_net(UNKNOWN)
    again = parse_net(net_text(net))
    assert again == net
    assert sorted(p for p, _ in net.layers[0].params.walk_extras()) == [
        *("blobs_lr", "convolution_param.odd", "fork_param", "phase"),
    ]
    assert [extra.value for extra in again.params.extras] == [1, 2.5]
    with pytest.raises(text_format.ParseError):
        by_protobuf(net_text(net))


def with_template(folder: Path, name: str, change: tuple[str, str]) -> str:
    text = (TEMPLATES / name).read_text(encoding="utf-8")
    assert change[0] in text
    (folder / name).write_text(text.replace(*change, 1), encoding="utf-8")
    return str(folder)


def test_a_users_template_replaces_the_built_in_one(tmp_path: Path) -> None:
    folder = with_template(tmp_path, "net.prototxt.j2", ("name:", "# laid out by me\nname:"))
    assert net_text(small(), templates=folder) == "# laid out by me\n" + net_text(small())
    assert solver_text(SolverParameter(base_lr=1), templates=folder) == "base_lr: 1\n"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (("type: {{ layer.type | quoted }}", 'type: "ReLU"'), "differs from the net it was rendered from"),
        (("{{ layer.params | fields(1) -}}", ""), "differs from the net it was rendered from"),
        (("name: {{ net.name | quoted }}", ""), "differs from the net it was rendered from"),
        (("bottom: {{ bottom.blob", "bottom: {{ layer.name"), "differs from the net it was rendered from"),
        (("dim: {{ dim }}", "dim: {{ dim + 1 }}"), "differs from the net it was rendered from"),
        (("name: {{ net.name", "surplus: 1 name: {{ net.name"), "differs from the net it was rendered from"),
        (("layer {", "layer {{"), r"net\.prototxt\.j2, line \d+"),
        (("layer {\n", "layer \n"), "cannot be parsed: line"),
        (("{{ net.name", "{{ net.nam"), "template net.prototxt.j2: .*no attribute 'nam'"),
        (("{{ net.name", "{{ missing"), "'missing' is undefined"),
        (("| quoted }}", "| quotet }}"), "No filter named 'quotet'"),
    ],
)
def test_a_template_that_loses_anything_is_an_error(change: tuple[str, str], error: str, tmp_path: Path) -> None:
    folder = with_template(tmp_path, "net.prototxt.j2", change)
    with pytest.raises(PrototxtGenError, match=error):
        net_text(small(), templates=folder)


def test_a_template_that_drops_unknown_fields_is_an_error(tmp_path: Path) -> None:
    folder = with_template(tmp_path, "net.prototxt.j2", ("{{ net.params | fields(0) -}}", "force_backward: true"))
    with pytest.raises(NetError, match="differs from the net it was rendered from"):
        net_text(parse_net(UNKNOWN), templates=folder)


def test_a_solver_template_that_changes_the_solver_is_an_error(tmp_path: Path) -> None:
    folder = with_template(tmp_path, "solver.prototxt.j2", ("{{ solver | fields(0) -}}", "base_lr: 2"))
    with pytest.raises(NetError, match=r"solver\.prototxt\.j2 differs from the solver"):
        solver_text(SolverParameter(base_lr=1), templates=folder)
