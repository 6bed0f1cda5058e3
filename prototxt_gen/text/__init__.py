"""Parser and printer of protobuf text format, without a schema: text to a tree of fields, and back.

The parser accepts everything that protobuf accepts (text-format-spec of its documentation, `TextFormat::Parser` in
text_format.cc, `Tokenizer` in tokenizer.cc), and also `//` and `/* */` comments, which many prototxts contain.

    layer { name: "ip1" inner_product_param { num_output: 10 } }
    Field("layer", (Field("name", "ip1", 1), Field("inner_product_param", (Field("num_output", 10, 1),), 1)), 1)

Strings are bytes in protobuf. Here they are `str`, decoded as UTF-8; bytes that are not UTF-8 become U+DC80..U+DCFF
(Python's "surrogateescape"), and `value.encode("utf-8", "surrogateescape")` restores the bytes.

Numbers are int if written as an integer, else float. `inf` and `nan` are Words, as an enum may have such names (and a
NaN is not equal to itself), and so are numbers too large for a float; `-inf` is a float. A Word is equal to the str of
its letters; use isinstance to distinguish them.
"""

from __future__ import annotations

from prototxt_gen.text.encoding import decode
from prototxt_gen.text.parser import MAX_DEPTH, parse
from prototxt_gen.text.printer import format_fields
from prototxt_gen.text.scalars import format_scalar
from prototxt_gen.text.tree import Field, Scalar, Value, Word

__all__ = ["MAX_DEPTH", "Field", "Scalar", "Value", "Word", "decode", "format_fields", "format_scalar", "parse"]
