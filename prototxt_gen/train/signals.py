"""Ctrl-C and SIGTERM during training: finish the step, then stop; during a test, stop at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):
    """A test was cut short by a signal."""


Agree = Callable[[int], int]
"""Makes the largest of all processes' numbers known to each."""


class Stop:
    """Within `with`, the first signal sets `signal`; a second one ends the program where it is.

    `agreed` is the signal that the loop obeys: where there are several processes, they must all stop at one iteration.
    """

    def __init__(self, agree: Agree | None = None) -> None:
        self.signal = self.agreed = 0
        self._agree = agree
        self._interruptible = False
        self._before: list[tuple[signal.Signals, Any]] = []

    @property
    def exit_code(self) -> int:
        """What a shell expects of a program that a signal ended: 130 after Ctrl-C, 143 after SIGTERM; 0 without."""
        ended_by = self.signal or self.agreed
        return 128 + ended_by if ended_by else 0

    def agree(self) -> None:
        """Settle whether to stop here."""
        self.agreed = self._agree(self.signal) if self._agree else self.signal

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():  # signals are the main thread's alone
            self._before = [(number, signal.signal(number, self._take)) for number in _SIGNALS]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before:
            signal.signal(number, handler)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self.signal:
            for known, handler in self._before:
                signal.signal(known, handler)
            raise KeyboardInterrupt
        self.signal = number
        if self._interruptible:
            raise Stopped

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let a signal end this block by Stopped: for what changes nothing and may take long.

        Not where there are several processes, which would wait for this one.
        """
        if self.signal and not self._agree:
            raise Stopped
        self._interruptible = self._agree is None
        try:
            yield
        finally:
            self._interruptible = False
