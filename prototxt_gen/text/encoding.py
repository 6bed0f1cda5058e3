"""Bytes of a prototxt to text: files come in many encodings, old Chinese ones mostly in their comments."""

from __future__ import annotations

from codecs import BOM_UTF16_BE, BOM_UTF16_LE

from prototxt_gen.common.errors import PrototxtError


def decode(data: bytes) -> str:
    """Return the text of a prototxt: as its byte order mark says, else UTF-8, else GB18030, else Latin-1."""
    marked = data.startswith((BOM_UTF16_BE, BOM_UTF16_LE))
    for encoding in ("utf-16",) if marked else ("utf-8-sig", "gb18030", "latin-1"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise PrototxtError("the file begins with the byte order mark of UTF-16 but is not UTF-16")
