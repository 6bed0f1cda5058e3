"""Decoding of prototxt files, whose comments have many encodings, such as GB18030 in old Chinese files."""

from __future__ import annotations

from codecs import BOM_UTF16_BE, BOM_UTF16_LE

from prototxt_gen.common.errors import PrototxtError


def decode(data: bytes) -> str:
    """Return the text of a prototxt: UTF-16 if it has that byte order mark, else UTF-8, else GB18030, else Latin-1.

    Raises PrototxtError if the text has the byte order mark but is not UTF-16.
    """
    is_utf16 = data.startswith((BOM_UTF16_BE, BOM_UTF16_LE))
    for encoding in ("utf-16",) if is_utf16 else ("utf-8-sig", "gb18030", "latin-1"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise PrototxtError("the file begins with the byte order mark of UTF-16 but is not UTF-16")
