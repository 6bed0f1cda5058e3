"""Progress bars: on a terminal only, on stderr, one kind for data sets, builds and training."""

from __future__ import annotations

import io
import sys

import click
import pytest

from prototxt_gen.common.progress import ProgressBar, progress_bar, share_bar, sub_progress


class Terminal(io.StringIO):
    """A stderr that says it is a terminal, and keeps what is written to it."""

    def isatty(self) -> bool:
        return True


def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Make stderr a terminal; called in the test itself, as pytest replaces stderr between fixtures and test."""
    made = Terminal()
    monkeypatch.setattr(sys, "stderr", made)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    return made


def test_nothing_is_drawn_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("images") as progress:
        assert progress is None
    with share_bar() as report:
        report("compiling", 0.5)
    assert capsys.readouterr() == ("", "")


def test_items_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = terminal(monkeypatch)
    with progress_bar("data/[red]") as progress:
        assert progress is not None
        progress(3, 7)
    assert "data/[red]" in click.unstyle(stderr.getvalue())  # no markup of rich's
    assert "3/7" in click.unstyle(stderr.getvalue())


def test_a_build_shows_percent_and_what_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = terminal(monkeypatch)
    with share_bar() as report:
        report("compiling net.cpp", 0.42)
        assert "42% compiling net.cpp" in click.unstyle(stderr.getvalue())
        report("done", 1.0)
    assert "100% done" in click.unstyle(stderr.getvalue())


def test_a_line_is_printed_above_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = terminal(monkeypatch)
    with ProgressBar(total=1, text="loss 0.5") as bar:
        bar.print("iteration 1, test: accuracy [0.9]")
        bar.update(1)
    assert "iteration 1, test: accuracy [0.9]\n" in click.unstyle(stderr.getvalue())
    assert "1/1 loss 0.5" in click.unstyle(stderr.getvalue())


def test_parts_of_the_progress_add_up() -> None:
    seen: list[float] = []
    inner = sub_progress(sub_progress(lambda what, share: seen.append(share), 0.5, 1.0), 0.0, 0.5)
    inner("", 0.0)
    inner("", 1.0)
    assert seen == [0.5, 0.75]
