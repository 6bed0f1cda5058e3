"""A process that answers orders without Caffe: for tests of who asks."""

from __future__ import annotations

from typing import Any

from prototxt_gen.real_caffe.child_server import Order, serve


class Session:
    """Says what it is told to say."""

    def __init__(self, order: Order) -> None:
        self.first = order

    def started(self) -> Any:
        """Return nothing."""

    def say(self, order: Order) -> Any:
        """Return the words of the order."""
        return order["words"]


if __name__ == "__main__":
    serve(Session)
