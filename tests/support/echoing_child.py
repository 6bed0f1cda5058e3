"""A child process that answers requests without Caffe, for tests of ChildProcess."""

from __future__ import annotations

from typing import Any

from prototxt_gen.real_caffe.child_server import Request, serve


class EchoHandler:
    """A request handler that returns the request's words."""

    def __init__(self, request: Request) -> None:
        self.first = request

    def start_answer(self) -> Any:
        """Return nothing."""

    def say(self, request: Request) -> Any:
        """Return the words of the request."""
        return request["words"]


if __name__ == "__main__":
    serve(EchoHandler)
