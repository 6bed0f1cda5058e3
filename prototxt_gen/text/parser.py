"""The reader: one regular expression for the common shapes, and methods that take all of the grammar for the rest."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn, TypeAlias

from prototxt_gen.common.errors import PrototxtError
from prototxt_gen.text.encoding import decode
from prototxt_gen.text.scalars import Scalars, unescaped
from prototxt_gen.text.tree import Field, Scalar

MAX_DEPTH = 100
"""Messages inside each other that a text may have; more is an error."""

_Frame: TypeAlias = "tuple[list[Field], str, int, str, bool]"
"""An open message: the fields before it, its name, its line, its bracket, whether it is in a list."""

_SKIP = re.compile(r"\s*(?:(?:#|//)[^\n]*\s*|/\*(?s:.*?)\*/\s*)*", re.A)
_NAME = re.compile(r"[A-Za-z_]\w*", re.A)
_BRACKETED = re.compile(r"\[((?:[^]#\"]|#[^\n]*\n)*)\]")
_TYPE_NAME = re.compile(r"(?:[\w.~!$&()*+,;=%-][\w.~!$&()*+,;=%/-]*/)?[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.A)
_SPACE_OR_COMMENT = re.compile(r"\s+|#[^\n]*", re.A)
_RUN = re.compile(r"[\w.][\w.+-]*", re.A)
_STRING = re.compile(r""""[^"\\\n]*(?:\\.[^"\\\n]*)*"|'[^'\\\n]*(?:\\.[^'\\\n]*)*'""")

# The common shapes in one match each, with the separator, white space and comments that follow. What this does not
# match (an escape, a list, an error) is read by the slower methods below, which take everything. The look-aheads keep
# it from giving back the end of a word, or a separator, to make the rest fit.
_END = r"""\s*(?:[,;]\s*)?(?:(?:#|//)[^\n]*\n\s*)*(?![\s"'#/,;])"""
_COMMON = re.compile(
    rf"""([A-Za-z_]\w*)\s*(?::\s*("[^"\\\n]*"|'[^'\\\n]*'|-?[\w.][\w.+-]*(?![\w.+-])){_END}|:?\s*([{{<])\s*)"""
    rf"""|([}}>]){_END}|.""",
    re.A | re.S,
)
_CLOSERS = {"{": "}", "<": ">"}


def parse(text: str | bytes) -> tuple[Field, ...]:
    """Return the fields of a text in order; lists are expanded into repeated fields.

    Raises PrototxtError, one sentence with the line, where `text` is not protobuf text format.
    """
    text = decode(text) if isinstance(text, bytes) else _normal(text)
    if (nul := text.find("\0")) >= 0:
        _fail(text, nul, "a NUL byte, so this is not a text")
    with _collector_paused():
        return _Reader(text).read()


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Keep the cycle collector from walking a tree of tuples as it grows, which takes as long as reading it."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _normal(text: str) -> str:
    """Return `text` with its escaped bytes joined to characters where they make one; most texts are ASCII anyway."""
    text = text.removeprefix("\ufeff")
    try:
        return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        _fail(text, error.start, f"{text[error.start]!r} is half a character")


def _fail(text: str, position: int, problem: str) -> NoReturn:
    line = text.count("\n", 0, position) + 1
    raise PrototxtError(f"line {line}: {problem}", line)


def _brief(name: str) -> str:
    return name if len(name) <= 60 else f"{name[:57]}..."


class _Names(dict[str, str]):
    """One string for all fields of one name."""

    def __missing__(self, name: str) -> str:
        return self.setdefault(name, name)


class _Reader:
    """A text, where in it we are, and the messages open there. At rest `position` is at no white space."""

    def __init__(self, text: str) -> None:
        self.text, self.position, self.line = text, 0, 1
        self.fields: list[Field] = []
        self.stack: list[_Frame] = []
        self.names, self.scalars = _Names(), Scalars()

    def read(self) -> tuple[Field, ...]:
        self.move(0)
        while self.position < len(self.text):
            self.common()
            self.move(self.position)
            if self.position < len(self.text):
                self.uncommon()
        if self.stack:
            _, name, line, bracket, _ = self.stack[-1]
            raise PrototxtError(f"the file ends inside {_brief(name)} {bracket}, opened in line {line}", line)
        return tuple(self.fields)

    def common(self) -> None:
        """Read on for as long as all is of the common shapes: the hot loop, written for speed."""
        text, position, line, fields, stack = self.text, self.position, self.line, self.fields, self.stack
        count, names, scalars, new = text.count, self.names, self.scalars, tuple.__new__
        for match in _COMMON.finditer(text, position):
            name, scalar, bracket, closer = match.groups()
            if scalar is not None:
                if (value := scalars[scalar]) is None:
                    break
                fields.append(new(Field, (names[name], value, line)))
            elif bracket is not None and len(stack) < MAX_DEPTH:
                stack.append((fields, names[name], line, bracket, False))
                fields = []
            elif closer is not None and stack and closer == _CLOSERS[stack[-1][3]] and not stack[-1][4]:
                outer, name, opened, _, _ = stack.pop()
                outer.append(new(Field, (name, tuple(fields), opened)))
                fields = outer
            else:
                break
            end = match.end()
            line += count("\n", position, end)
            position = end
        self.position, self.line, self.fields = position, line, fields

    def uncommon(self) -> None:
        """Read one thing of any shape: a bracket that closes, a scalar field, a list of scalars, or `name {`."""
        if (closer := self.text[self.position]) in "}>":
            self.end_message(closer)
        else:
            self.field()

    def field(self) -> None:
        line, name = self.line, self.name()
        colon = self.take(":")
        if bracket := self.take("{<"):
            self.begin_message(name, line, bracket, listed=False)
        elif self.take("["):
            self.begin_list(name, colon)
        elif colon:
            self.fields.append(Field(name, self.scalar(f"{_brief(name)}:"), line))
            self.take(",;")
        else:
            self.fail(f"':' or '{{' is expected after {_brief(name)}, not {self.here()}")

    def begin_message(self, name: str, line: int, bracket: str, listed: bool) -> None:
        if len(self.stack) == MAX_DEPTH:
            self.fail(f"more than {MAX_DEPTH} messages inside each other")
        self.stack.append((self.fields, name, line, bracket, listed))
        self.fields = []

    def end_message(self, closer: str) -> None:
        if not self.stack:
            self.fail(f"{closer!r} closes nothing")
        outer, name, line, bracket, listed = self.stack[-1]
        if closer != _CLOSERS[bracket]:
            wanted = f"{_CLOSERS[bracket]!r} is expected to close {_brief(name)} {bracket} of line {line}"
            self.fail(f"{wanted}, not {closer!r}")
        self.stack.pop()
        outer.append(Field(name, tuple(self.fields), line))
        self.fields = outer
        self.move(self.position + 1)
        if listed and not self.list_ends(name):
            self.next_in_list(name)
        else:
            self.take(",;")

    def begin_list(self, name: str, colon: str) -> None:
        """Read a list from after its '[' to its end, but if it is of messages to where the first begins."""
        line = self.line
        if bracket := self.take("{<"):
            self.begin_message(name, line, bracket, listed=True)
        elif self.take("]"):
            self.take(",;")
        elif colon:
            self.scalar_list(name)
        else:
            self.fail(f"':' is expected between {_brief(name)} and its list of scalars")

    def scalar_list(self, name: str) -> None:
        ended = False
        while not ended:
            line = self.line
            self.fields.append(Field(name, self.scalar(f"'[' or ',' in the list {_brief(name)}"), line))
            ended = self.list_ends(name)
        self.take(",;")

    def next_in_list(self, name: str) -> None:
        line, bracket = self.line, self.take("{<")
        if not bracket:
            self.fail(f"'{{' is expected after ',' in the list {_brief(name)}, not {self.here()}")
        self.begin_message(name, line, bracket, listed=True)

    def list_ends(self, name: str) -> bool:
        if not (found := self.take(",]")):
            self.fail(f"',' or ']' is expected in the list {_brief(name)}, not {self.here()}")
        return found == "]"

    def name(self) -> str:
        """Read the name of a field; of an extension without white space and comments, but in its brackets."""
        match = _NAME.match(self.text, self.position) or _BRACKETED.match(self.text, self.position)
        name = _SPACE_OR_COMMENT.sub("", match[0]) if match else ""
        if not match or (name[0] == "[" and not _TYPE_NAME.fullmatch(name[1:-1])):
            self.fail(f"a field name is expected, not {self.here()}")
        self.move(match.end())
        return self.names[name]

    def scalar(self, after: str) -> Scalar:
        if self.text.startswith(("'", '"'), self.position):
            return self.string()
        minus = self.take("-")
        run = _RUN.match(self.text, self.position)
        if not run:
            self.fail(f"a value is expected after {minus or after}, not {self.here()}")
        if (value := self.scalars[minus + run[0]]) is None:
            self.fail(f"{_brief(minus + run[0])} is neither a number of protobuf nor a word")
        self.move(run.end())
        return value

    def string(self) -> str:
        """Read a string, or more of them in a row, which are one."""
        parts = []
        while self.text.startswith(("'", '"'), self.position):
            if not (match := _STRING.match(self.text, self.position)):
                self.fail("a string is not closed")
            try:
                parts.append(unescaped(match[0][1:-1]))
            except ValueError as error:
                self.fail(f"{error} in a string is no escape sequence; a backslash is written \\\\")
            self.move(match.end())
        return b"".join(parts).decode("utf-8", "surrogateescape")

    def take(self, characters: str) -> str:
        """Return the character here and go past it if it is one of `characters`, else return an empty string."""
        here = self.text[self.position : self.position + 1]
        if not here or here not in characters:
            return ""
        self.move(self.position + 1)
        return here

    def move(self, position: int) -> None:
        """Go to `position` and on past white space and comments."""
        match = _SKIP.match(self.text, position)
        end = match.end() if match else position
        self.line += self.text.count("\n", self.position, end)
        self.position = end
        if self.text.startswith("/*", end):
            self.fail("a comment is not closed")

    def here(self) -> str:
        return repr(self.text[self.position]) if self.position < len(self.text) else "the end of the file"

    def fail(self, problem: str) -> NoReturn:
        _fail(self.text, self.position, problem)
