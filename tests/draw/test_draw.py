"""Drawings of nets: their contents, and the export as DOT, SVG, PNG and HTML."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from prototxt_gen.analysis import analyse
from prototxt_gen.cli import cli
from prototxt_gen.common.errors import PrototxtGenError, RuntimeMissingError
from prototxt_gen.draw import dot
from prototxt_gen.draw.dot import dot_text, render_with_graphviz
from prototxt_gen.draw.drawing import Box, Drawing, Scope, family, make_drawing, name_in_scope
from prototxt_gen.draw.html import html_text
from prototxt_gen.models import build
from prototxt_gen.net.prototxt_reader import parse_net
from tests.support.browser import asked

needs_dot = pytest.mark.skipif(shutil.which("dot") is None, reason="graphviz is not installed")
TINY = """
input: "data" input_shape { dim: 1 dim: 3 dim: 8 dim: 8 }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "conv/bn" type: "BN" bottom: "conv" top: "conv/bn" }
layer { name: "relu" type: "ReLU" bottom: "conv/bn" top: "conv/bn" }
layer { name: "block/a" type: "Sigmoid" bottom: "conv/bn" top: "block/a" }
layer { name: "block/b" type: "TanH" bottom: "conv/bn" top: "block/b" }
layer { name: "block" type: "Eltwise" bottom: "block/a" bottom: "block/b" top: "block" }
"""


def drawn(text: str) -> Drawing:
    return make_drawing(analyse(parse_net(text).at("TEST")))


def children(scope: Scope) -> list[str]:
    return [child.name if isinstance(child, Box) else f"{child.path}/" for child in scope.children]


def test_a_layer_that_only_follows_is_stacked() -> None:
    made = drawn(TINY)
    stack = next(box for box in made.boxes if box.name == "conv")
    assert [row.layer.name for row in stack.rows] == ["conv", "conv/bn", "relu"]


def test_a_blob_with_two_readers_ends_a_stack() -> None:
    made = drawn(TINY.replace('bottom: "block/a" bottom: "block/b"', 'bottom: "conv" bottom: "block/b"'))
    assert [row.layer.name for row in next(box for box in made.boxes if box.name == "conv").rows] == ["conv"]


def test_scopes_and_edges() -> None:
    made = drawn(TINY)
    assert children(made.root) == ["data", "conv", "block/", "block"]
    names = {box.id: (box.kind, box.name) for box in made.boxes}
    edges = {(names[edge.source][1], names[edge.target][1], edge.label) for edge in made.edges}
    assert ("data", "conv", "1x3x8x8") in edges
    assert ("block/a", "block", "1x4x6x6") in edges
    assert ("block", "block", "1x4x6x6") in edges  # to the output of the same name


def test_every_bottom_is_an_edge_or_inside_a_stack() -> None:
    analysis = analyse(build("attention-56-cifar"))
    made = make_drawing(analysis)
    bottoms = sum(len(row.layer.bottoms) for row in analysis.rows)
    inside = sum(len(box.rows) - 1 for box in made.boxes if box.rows)
    assert len(made.edges) == bottoms - inside + len(analysis.net.outputs)
    assert sum(len(box.rows) for box in made.boxes) == len(analysis.rows)
    assert sorted(box.id for box in made.root.boxes()) == sorted(box.id for box in made.boxes)


def test_attention_92_collapses_to_its_blocks() -> None:
    tops = children(make_drawing(analyse(build("attention-92"))).root)
    assert len(tops) < 25
    assert {"AttentionA_1/", "AttentionB_2/", "AttentionC_3/"} <= set(tops)
    assert "AttentionA_1_residual" not in tops  # its neighbours are all in AttentionA_1, and so it is there


def test_missing_blobs_are_drawn() -> None:
    made = drawn('layer { name: "r" type: "ReLU" bottom: "none" top: "r" }')
    assert [box.name for box in made.boxes if box.kind == "missing"] == ["none"]


def test_families() -> None:
    layers = {layer.name: layer for layer in parse_net(TINY).layers}
    assert family(layers["conv"]) == "learned"
    assert family(parse_net('layer { name: "x" type: "Nonsense" bottom: "a" top: "b" }').layers[0]) == "unknown"


def test_names_in_scopes() -> None:
    assert [name_in_scope("a/b/c", "a"), name_in_scope("a/b", "a/b"), name_in_scope("a", "")] == ["b/c", "b", "a"]


def test_dot_needs_no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert dot_text(drawn(TINY)).startswith("digraph")
    with pytest.raises(RuntimeMissingError, match="apt-get install graphviz"):
        render_with_graphviz(drawn(TINY), "svg")


@needs_dot
@pytest.mark.parametrize("expanded", [False, True])
def test_svg_holds_every_block(expanded: bool) -> None:
    svg = render_with_graphviz(drawn(TINY), "svg", expanded).decode()
    assert "1x4x6x6" in svg
    assert (">Sigmoid" in svg) and (svg.count("cluster") >= 1) == expanded


@needs_dot
def test_png() -> None:
    assert render_with_graphviz(drawn(TINY), "png").startswith(b"\x89PNG")


@needs_dot
@pytest.mark.parametrize("name", ['a"b', "<script>", "\\n\\N", "x\\377y", "\\001", "a/b/c/", "/", "日本", "a" * 5000])
def test_any_name_can_be_drawn(name: str) -> None:
    written = name if name.startswith(("x\\", "\\0")) else name.replace("\\", "\\\\").replace('"', '\\"')
    made = drawn(f'layer {{ name: "{written}" type: "ReLU" bottom: "{written}" top: "t" }}')
    for expanded in (False, True):
        assert b"<svg" in render_with_graphviz(made, "svg", expanded)
    assert "<script>" not in html_text(made).split('id="net">')[1].split("</script>")[0]


def test_too_many_boxes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dot, "MAX_BOXES", 2)
    with pytest.raises(PrototxtGenError, match=r"write \.html or \.dot"):
        render_with_graphviz(drawn(TINY), "svg")


def page(text: str) -> tuple[str, dict[str, object]]:
    data = json.loads(text.split('id="net">')[1].split("</script>")[0])
    assert isinstance(data, dict)
    return text, data


def test_html_needs_no_other_files_and_no_network() -> None:
    text, data = page(html_text(drawn(TINY)))
    assert set(re.findall(r"https?://[\w./]+", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"(src|href)=", text)
    assert data["expanded"] is False
    assert [len(edge) for edge in data["edges"]] == [3] * len(drawn(TINY).edges)  # type: ignore[attr-defined]


def test_html_holds_every_layer_once() -> None:
    analysis = analyse(build("attention-92"))
    _, data = page(html_text(make_drawing(analysis), expanded=True))

    def names(item: dict[str, list[dict[str, object]]]) -> list[object]:
        own = [layer["name"] for layer in item.get("layers", [])]
        return own + [name for child in item.get("children", []) for name in names(child)]  # type: ignore[arg-type]

    assert sorted(map(str, names(data["root"]))) == sorted(row.layer.name for row in analysis.rows)  # type: ignore[arg-type]


def test_command(tmp_path: Path) -> None:
    net = tmp_path / "net.prototxt"
    net.write_text(TINY)
    for suffix in (".dot", ".html"):
        output = tmp_path / f"net{suffix}"
        assert CliRunner().invoke(cli, ["draw", str(net), "-o", str(output)]).exit_code == 0
        assert "block" in output.read_text()
    again = CliRunner().invoke(cli, ["draw", str(net), "-o", str(output)])
    assert again.exit_code == 1 and "--force" in again.stderr
    assert CliRunner().invoke(cli, ["draw", str(net), "-o", str(output), "--force"]).exit_code == 0
    wrong = CliRunner().invoke(cli, ["draw", str(net), "-o", str(tmp_path / "net.gif")])
    assert wrong.exit_code == 1 and ".svg" in wrong.stderr


def test_a_browser_opens_blocks_and_finds_layers(tmp_path: Path) -> None:
    found = asked(
        tmp_path / "net.html",
        html_text(make_drawing(analyse(build("attention-56-cifar")))),
        """
        const q = s => document.querySelectorAll(s), button = id => document.getElementById(id).click();
        const wanted = net.root.children.length, shut = q(".block").length;
        q(".block")[0].dispatchEvent(new MouseEvent("click", { bubbles: true }));
        const one = q(".frame").length;
        button("expand");
        const rows = q(".row").length, left = q(".block").length;
        q(".row")[0].dispatchEvent(new MouseEvent("click", { bubbles: true }));
        const text = document.querySelector("#side pre").textContent;
        button("collapse");
        const search = document.getElementById("search");
        search.value = "AttentionB_1/fusion";
        search.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter" }));
        const lost = [...q("svg g")].filter(g => /NaN|undefined/.test(g.getAttribute("transform"))).length;
        return { wanted, shut, one, rows, left, text, lost, found: document.querySelector("#side h2").textContent };
        """,
    )
    assert found["faults"] == []
    assert 5 < found["shut"] < found["wanted"]
    assert found["one"] == 1
    assert found["left"] == 0
    assert found["rows"] == len(build("attention-56-cifar").layers)
    assert found["text"].startswith("layer {")
    assert found["found"].startswith("AttentionB_1/fusion")
    assert found["lost"] == 0
