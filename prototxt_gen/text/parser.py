"""Parser of protobuf text format: a fast regular expression for common fields, methods for the full grammar."""

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
"""Maximum depth of nested messages; a deeper text is an error."""

_Frame: TypeAlias = "tuple[list[Field], str, int, str, bool]"
"""An open message: the fields before it, its name, line and opening bracket, and whether it is in a list."""

_SKIP = re.compile(r"\s*(?:(?:#|//)[^\n]*\s*|/\*(?s:.*?)\*/\s*)*", re.A)
_NAME = re.compile(r"[A-Za-z_]\w*", re.A)
_BRACKETED = re.compile(r"\[((?:[^]#\"]|#[^\n]*\n)*)\]")
_TYPE_NAME = re.compile(r"(?:[\w.~!$&()*+,;=%-][\w.~!$&()*+,;=%/-]*/)?[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.A)
_SPACE_OR_COMMENT = re.compile(r"\s+|#[^\n]*", re.A)
_RUN = re.compile(r"[\w.][\w.+-]*", re.A)
_STRING = re.compile(r""""[^"\\\n]*(?:\\.[^"\\\n]*)*"|'[^'\\\n]*(?:\\.[^'\\\n]*)*'""")

# One match of _COMMON is one common field, with the separator, white space and comments behind it. Everything else (an
# escape, a list, an error) is left to the slower methods below. The look-aheads prevent the expression from matching
# only a part of a word, or from leaving out a separator.
_END = r"""\s*(?:[,;]\s*)?(?:(?:#|//)[^\n]*\n\s*)*(?![\s"'#/,;])"""
_COMMON = re.compile(
    rf"""([A-Za-z_]\w*)\s*(?::\s*("[^"\\\n]*"|'[^'\\\n]*'|-?[\w.][\w.+-]*(?![\w.+-])){_END}|:?\s*([{{<])\s*)"""
    rf"""|([}}>]){_END}|.""",
    re.A | re.S,
)
_CLOSERS = {"{": "}", "<": ">"}


def parse(text: str | bytes) -> tuple[Field, ...]:
    """Return the fields of a text, in order; lists are expanded into repeated fields.

    Raises PrototxtError, with the line, if `text` is not in protobuf text format.
    """
    text = decode(text) if isinstance(text, bytes) else _normalised(text)
    if (nul := text.find("\0")) >= 0:
        _fail(text, nul, "the file has a NUL byte, so it is not a text file")
    with _collector_paused():
        return _Parser(text).read()


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Pause the garbage collector, which would examine the growing tree again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _normalised(text: str) -> str:
    """Return `text` with escaped bytes decoded to characters if they are UTF-8."""
    text = text.removeprefix("\ufeff")
    try:
        return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        _fail(text, error.start, f"{text[error.start]!r} is a lone surrogate, not a character")


def _fail(text: str, position: int, problem: str) -> NoReturn:
    line = text.count("\n", 0, position) + 1
    raise PrototxtError(f"line {line}: {problem}", line)


def _shortened(name: str) -> str:
    return name if len(name) <= 60 else f"{name[:57]}..."


class _InternedNames(dict[str, str]):
    """A dict that returns the same string object for equal names, to save memory."""

    def __missing__(self, name: str) -> str:
        return self.setdefault(name, name)


class _Parser:
    """State of the parser: the position in the text, which is never at white space, and the open messages."""

    def __init__(self, text: str) -> None:
        self.text, self.position, self.line = text, 0, 1
        self.fields: list[Field] = []
        self.stack: list[_Frame] = []
        self.names, self.scalars = _InternedNames(), Scalars()

    def read(self) -> tuple[Field, ...]:
        """Return all fields of the text."""
        self.move(0)
        while self.position < len(self.text):
            self.read_common_fields()
            self.move(self.position)
            if self.position < len(self.text):
                self.read_one_field()
        if self.stack:
            _, name, line, bracket, _ = self.stack[-1]
            raise PrototxtError(f"the file ends inside {_shortened(name)} {bracket}, opened in line {line}", line)
        return tuple(self.fields)

    def read_common_fields(self) -> None:
        """Read fields until one does not match _COMMON. Most of the time is spent here, so it is written for speed."""
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

    def read_one_field(self) -> None:
        """Read one item with the full grammar: a closing bracket, a scalar field, a list of scalars, or `name {`."""
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
            self.fields.append(Field(name, self.scalar(f"{_shortened(name)}:"), line))
            self.take(",;")
        else:
            self.fail(f"':' or '{{' is expected after {_shortened(name)}, not {self.here()}")

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
            wanted = f"{_CLOSERS[bracket]!r} is expected to close {_shortened(name)} {bracket} of line {line}"
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
        """Read a list behind its '[': of scalars to its end, of messages up to the first message."""
        line = self.line
        if bracket := self.take("{<"):
            self.begin_message(name, line, bracket, listed=True)
        elif self.take("]"):
            self.take(",;")
        elif colon:
            self.scalar_list(name)
        else:
            self.fail(f"':' is expected between {_shortened(name)} and its list of scalars")

    def scalar_list(self, name: str) -> None:
        ended = False
        while not ended:
            line = self.line
            self.fields.append(Field(name, self.scalar(f"'[' or ',' in the list {_shortened(name)}"), line))
            ended = self.list_ends(name)
        self.take(",;")

    def next_in_list(self, name: str) -> None:
        line, bracket = self.line, self.take("{<")
        if not bracket:
            self.fail(f"'{{' is expected after ',' in the list {_shortened(name)}, not {self.here()}")
        self.begin_message(name, line, bracket, listed=True)

    def list_ends(self, name: str) -> bool:
        if not (found := self.take(",]")):
            self.fail(f"',' or ']' is expected in the list {_shortened(name)}, not {self.here()}")
        return found == "]"

    def name(self) -> str:
        """Read a field name; the name of an extension includes its brackets, but no white space and comments."""
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
            self.fail(f"{_shortened(minus + run[0])} is neither a number of protobuf nor a word")
        self.move(run.end())
        return value

    def string(self) -> str:
        """Read a string; several strings in a row are joined to one."""
        parts = []
        while self.text.startswith(("'", '"'), self.position):
            if not (match := _STRING.match(self.text, self.position)):
                self.fail("a string has no closing quote")
            try:
                parts.append(unescaped(match[0][1:-1]))
            except ValueError as error:
                self.fail(f"{error} in a string is not an escape sequence; write \\\\ for a backslash")
            self.move(match.end())
        return b"".join(parts).decode("utf-8", "surrogateescape")

    def take(self, characters: str) -> str:
        """Return the next character and move behind it if it is one of `characters`, else return an empty string."""
        here = self.text[self.position : self.position + 1]
        if not here or here not in characters:
            return ""
        self.move(self.position + 1)
        return here

    def move(self, position: int) -> None:
        """Move to `position`, and from there behind white space and comments."""
        match = _SKIP.match(self.text, position)
        end = match.end() if match else position
        self.line += self.text.count("\n", self.position, end)
        self.position = end
        if self.text.startswith("/*", end):
            self.fail("a comment has no closing */")

    def here(self) -> str:
        return repr(self.text[self.position]) if self.position < len(self.text) else "the end of the file"

    def fail(self, problem: str) -> NoReturn:
        _fail(self.text, self.position, problem)
