"""Progress bars on stderr, drawn by rich. Nothing is drawn where stderr is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import ProgressColumn

Progress = Callable[[int, int], None]
"""Called with the number of items that are done, and of all items."""
ShareProgress = Callable[[str, float], None]
"""Called with what is being done, and with the share of the whole that is done, 0 to 1."""


def is_terminal() -> bool:
    """Return whether progress bars are drawn: stderr is a terminal."""
    return sys.stderr.isatty()


class ProgressBar:
    """A progress bar on stderr: title, bar, `done/total`, text. `style` "time-left" adds the time left.

    `style` "percent" shows percent in place of `done/total`, and draws only when it is updated: between updates a
    child process may ask for a password on the same terminal.
    """

    def __init__(
        self, title: str = "", total: float | None = None, done: int = 0, text: str = "", style: str = ""
    ) -> None:
        from rich.console import Console
        from rich.progress import Progress

        self._draws_itself = style != "percent"
        console = Console(stderr=True)
        columns = _columns(title, style)
        self._progress = Progress(*columns, console=console, refresh_per_second=4, auto_refresh=self._draws_itself)
        self._task = self._progress.add_task(title, total=total, completed=done, text=text)

    def __enter__(self) -> ProgressBar:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def update(self, done: float, total: float | None = None, text: str | None = None) -> None:
        """Move the bar; None leaves the total or the text as it is."""
        fields: dict[str, Any] = {} if text is None else {"text": text}
        refresh = not self._draws_itself
        self._progress.update(self._task, completed=done, total=total, refresh=refresh, **fields)

    def print(self, text: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Stop drawing; the bar stays on the screen as it is."""
        self._progress.stop()


def _columns(title: str, style: str) -> list[ProgressColumn]:
    from rich.progress import BarColumn, MofNCompleteColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns: list[ProgressColumn] = [TextColumn("{task.description}", markup=False)] if title else []
    columns += [BarColumn(), TaskProgressColumn() if style == "percent" else MofNCompleteColumn()]
    columns.append(TextColumn("{task.fields[text]}", markup=False))
    return [*columns, TimeRemainingColumn()] if style == "time-left" else columns


@contextmanager
def progress_bar(title: str) -> Iterator[Progress | None]:
    """Yield a function that moves a bar; None where no bar is drawn."""
    if not is_terminal():
        yield None
        return
    with ProgressBar(title, style="time-left") as bar:
        yield bar.update


@contextmanager
def share_bar() -> Iterator[ShareProgress]:
    """Yield a function that moves a bar by the share that is done; it does nothing where no bar is drawn."""
    if not is_terminal():
        yield lambda what, share: None
        return
    with ProgressBar(total=1, style="percent") as bar:
        yield lambda what, share: bar.update(share, text=what)


def sub_progress(progress: ShareProgress, start: float, end: float) -> ShareProgress:
    """Return a progress whose 0 to 1 is `start` to `end` of the given one."""
    return lambda what, share: progress(what, start + (end - start) * share)
