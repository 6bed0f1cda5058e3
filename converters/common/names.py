"""Names of layers, blobs and tensors, as files can store them and as messages list them."""

from __future__ import annotations

from collections.abc import Sequence

MAX_NAMES_SHOWN = 5


def valid_utf8(text: str) -> str:
    r"""Return the text with bytes that are not UTF-8 (surrogates from reading a prototxt) as escapes such as \xe9."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def listed_names(names: Sequence[str]) -> str:
    """Return the first names with commas between them, and how many more there are."""
    more = f" and {len(names) - MAX_NAMES_SHOWN} more" if len(names) > MAX_NAMES_SHOWN else ""
    return ", ".join(names[:MAX_NAMES_SHOWN]) + more
