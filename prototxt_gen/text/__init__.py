"""Protobuf text format, read and written without a schema: the tree of what a prototxt says, and back.

Read is all that protobuf takes (text-format-spec of its documentation, `TextFormat::Parser` in text_format.cc,
`Tokenizer` in tokenizer.cc), and besides the `//` and `/* */` comments that people write in the wild.

    layer { name: "ip1" inner_product_param { num_output: 10 } }
    Field("layer", (Field("name", "ip1", 1), Field("inner_product_param", (Field("num_output", 10, 1),), 1)), 1)

Strings are bytes in protobuf. Here they are `str`: the bytes read as UTF-8, each byte that is no UTF-8 standing as
U+DC80..U+DCFF (Python's "surrogateescape"); `value.encode("utf-8", "surrogateescape")` gives the bytes back.

Numbers are int where written as an integer, else float. `inf` and `nan` are Words, as an enum may have such names (and
a nan would not equal itself), and so is what is too large for a float; `-inf` is a float. A Word equals the string of
its letters: isinstance tells them apart.
"""

from __future__ import annotations

from prototxt_gen.text.encoding import decode
from prototxt_gen.text.parser import MAX_DEPTH, parse
from prototxt_gen.text.printer import format_fields
from prototxt_gen.text.scalars import format_scalar
from prototxt_gen.text.tree import Field, Scalar, Value, Word

__all__ = ["MAX_DEPTH", "Field", "Scalar", "Value", "Word", "decode", "format_fields", "format_scalar", "parse"]
