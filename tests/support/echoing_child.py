"""A process that answers orders without Caffe: for tests of who asks."""

from __future__ import annotations

from typing import Any

from prototxt_gen.real_caffe.child_server import Request, serve


class Session:
    """Says what it is told to say."""

    def __init__(self, request: Request) -> None:
        self.first = request

    def start_answer(self) -> Any:
        """Return nothing."""

    def say(self, request: Request) -> Any:
        """Return the words of the order."""
        return request["words"]


if __name__ == "__main__":
    serve(Session)
