"""Ctrl-C and SIGTERM during training: the current step is finished first; a test is interrupted at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class TestInterrupted(Exception):
    """A signal interrupted a test."""

    __test__ = False  # the class name would make pytest collect it


MaxOverProcesses = Callable[[int], int]
"""Returns the largest of the numbers that all processes pass to it."""


class StopSignal:
    """A context manager in which the first signal only sets `signal`; a second signal ends the program at once.

    `agreed_signal` is the signal that the training loop obeys (0: none). Where several processes train together, all of
    them must stop at the same iteration, so they agree on it.
    """

    def __init__(self, max_over_processes: MaxOverProcesses | None = None) -> None:
        self.signal = self.agreed_signal = 0
        self._max_over_processes = max_over_processes
        self._interruptible = False
        self._previous_handlers: list[tuple[signal.Signals, Any]] = []

    @property
    def exit_code(self) -> int:
        """The exit code a shell expects after a signal: 130 for Ctrl-C, 143 for SIGTERM; 0 without a signal."""
        number = self.signal or self.agreed_signal
        return 128 + number if number else 0

    def agree(self) -> None:
        """Set `agreed_signal`, the same in all processes."""
        self.agreed_signal = self._max_over_processes(self.signal) if self._max_over_processes else self.signal

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():  # only the main thread may set signal handlers
            self._previous_handlers = [(number, signal.signal(number, self._handle)) for number in _SIGNALS]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore_handlers()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal:
            self._restore_handlers()
            raise KeyboardInterrupt
        self.signal = number
        if self._interruptible:
            raise TestInterrupted

    def _restore_handlers(self) -> None:
        for number, handler in self._previous_handlers:
            signal.signal(number, handler)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let a signal end this block by TestInterrupted: for long work without side effects.

        With several processes the block is not interrupted, because the others would wait for this one.
        """
        if self.signal and not self._max_over_processes:
            raise TestInterrupted
        self._interruptible = self._max_over_processes is None
        try:
            yield
        finally:
            self._interruptible = False
