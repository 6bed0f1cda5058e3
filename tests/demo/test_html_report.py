"""The report of the demo: charts, tables, and one self-contained HTML page that a browser shows without errors."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prototxt_gen.common.errors import PrototxtGenError
from prototxt_gen.demo import html_report
from prototxt_gen.demo.line_charts import Line, line_chart, smoothed, thinned, tick_values
from prototxt_gen.evaluate.scores import evaluation_of_scores
from tests.support.browser import asked
from tests.support.demo_support import small_demo_run

pytestmark = pytest.mark.slow

VOID = {"meta", "img", "br", "input", "link", "line", "path", "circle"}
NUMBERS = st.floats(-1e6, 1e6, allow_nan=False)


@given(NUMBERS, NUMBERS)
def test_ticks_are_round_and_enclose_the_values(one: float, other: float) -> None:
    low, high = min(one, other), max(one, other)
    if high - low < 1e-6:
        return
    found = tick_values(low, high)
    step = found[1] - found[0]
    assert found[0] <= low + 1e-6 * step
    assert found[-1] >= high - 1e-6 * step
    assert 2 <= len(found) <= 8
    mantissa = step / 10 ** np.floor(np.log10(step) + 1e-9)
    assert min(abs(mantissa - nice) for nice in (1, 2, 2.5, 5, 10)) < 1e-3


def test_points_match_the_axes() -> None:
    made = line_chart([Line("a", [(0, 0.0), (50, 0.5), (100, 1.0)], "red", dots=True)], 300, 200, percent=True)
    (drawn,) = made.lines
    assert drawn.dots[0][:2] == (made.left, made.bottom)
    assert drawn.end == (made.right, made.top)
    assert drawn.dots[1][0] == pytest.approx((made.left + made.right) / 2)
    assert [tick.text for tick in made.up] == ["0 %", "20 %", "40 %", "60 %", "80 %", "100 %"]
    assert line_chart([Line("none", [], "red")]).lines == []


def test_smoothing_starts_at_the_first_value_and_keeps_a_constant() -> None:
    assert smoothed([(0, 4.0), (1, 4.0), (2, 4.0)]) == [(0, 4.0), (1, pytest.approx(4.0)), (2, pytest.approx(4.0))]
    assert thinned([(x, x) for x in range(1000)], 100)[-1] == (999, 999)
    assert len(thinned([(x, x) for x in range(1000)], 100)) <= 101


def test_the_colour_strength_of_a_cell_follows_its_share() -> None:
    scores = np.eye(2, dtype="float32")[[0, 0, 1, 1, 1]]
    table = html_report.confusion_table(evaluation_of_scores("x", scores, np.array([0, 0, 0, 0, 1])), ("a", "b"))
    assert [[cell["count"] for cell in row["cells"]] for row in table["rows"]] == [[2, 2], ["", 1]]
    assert [row["right"] for row in table["rows"]] == ["50.0%", "100.0%"]
    assert table["rows"][0]["cells"][1]["predicted"] == "2 of 4: a predicted as b"


class _Balanced(HTMLParser):
    """Sees that every element that is opened is closed, in order; and what is loaded from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.loaded += [value or "" for name, value in attributes if name == "src" and tag != "a"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def test_the_page_is_self_contained() -> None:
    asked, *_ = small_demo_run()
    text = asked.report.read_text()
    parser = _Balanced()
    parser.feed(text)
    assert parser.open == []
    assert len(parser.loaded) > 30
    assert all(source.startswith("data:image/png;base64,") for source in parser.loaded)
    assert not re.search(r"<link|@import|url\((?!#)", text)
    for link in re.findall(r'href="([^"]+)"', re.sub(r'srcdoc="[^"]*"', "", text)):
        assert (asked.out / link).is_file(), link


def test_the_page_has_the_results() -> None:
    asked, story, _ = small_demo_run()
    text = asked.report.read_text()
    (first, *_) = story.ran()
    assert first.evaluation is not None
    assert f"<b>{first.evaluation.top_accuracy(1):.2%}</b>" in text
    assert "They predict the same class for every one of them." in text
    for words in ("AttentionA_1", "AttentionB_1", "AttentionC_1", "attention-56-cifar", "ONNX Runtime", "pycaffe"):
        assert words in text
    assert story.verification is not None
    for outcome in story.verification.outcomes:
        assert (outcome.state == "not run") == (f'<b>{outcome.runtime}</b></td><td><span class="pill">not run' in text)


def test_an_incomplete_demo_has_no_report() -> None:
    from dataclasses import replace

    _, story, _ = small_demo_run()
    with pytest.raises(PrototxtGenError, match="the demo is not complete"):
        html_report.html_text(replace(story, trained=None))


def test_a_browser_shows_it(tmp_path: Path) -> None:
    demo, *_ = small_demo_run()
    found = asked(
        tmp_path / "report.html",
        demo.report.read_text(),
        "const q = s => [...document.querySelectorAll(s)], frame = document.querySelector('iframe').contentDocument;"
        "return { images: q('img').length, broken: q('img').filter(i => !i.naturalWidth).length,"
        "paths: q('svg path').length, blocks: frame.querySelectorAll('.block').length,"
        "wide: document.body.scrollWidth > innerWidth };",
    )
    assert found["faults"] == []
    assert found["broken"] == 0
    assert found["images"] > 30
    assert found["paths"] >= 4
    assert found["blocks"] > 5
    assert not found["wide"]
