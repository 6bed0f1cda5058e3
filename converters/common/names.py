"""Names of layers, blobs and tensors, as files can store them and as messages list them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Container, Iterable, Mapping, Sequence

MAX_NAMES_SHOWN = 5
NAMES_KEY = "caffe.names"
"""Metadata key of an ONNX model: the ONNX names of inputs and of blobs that have another name in Caffe, as JSON."""


def valid_utf8(text: str) -> str:
    r"""Return the text with bytes that are not UTF-8 (surrogates from reading a prototxt) as escapes such as \xe9."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def onnx_names(blobs: Iterable[str]) -> dict[str, str]:
    """Return a different ONNX name for each blob: its own, unless that is empty or not UTF-8.

    In ONNX an empty name stands for no value; such a blob is called `unnamed`.
    """
    blobs = list(blobs)
    taken = {blob for blob in blobs if blob and blob == valid_utf8(blob)}
    names: dict[str, str] = {}
    for blob in blobs:
        names[blob] = blob if blob in taken else unused_name(valid_utf8(blob) or "unnamed", taken)
        taken.add(names[blob])
    return names


def unused_name(name: str, taken: Container[str]) -> str:
    """Return the name, with a number behind it if it is taken."""
    candidates = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(2)))
    return next(candidate for candidate in candidates if candidate not in taken)


def stored_names(metadata: Mapping[str, str]) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Return the ONNX names of inputs, and of blobs, that an ONNX model's metadata tells, by blob name."""
    stored = json.loads(metadata.get(NAMES_KEY) or "{}")
    return stored.get("inputs", {}), stored.get("blobs", {})


def listed_names(names: Sequence[str]) -> str:
    """Return the first names with commas between them, and how many more there are."""
    more = f" and {len(names) - MAX_NAMES_SHOWN} more" if len(names) > MAX_NAMES_SHOWN else ""
    return ", ".join(names[:MAX_NAMES_SHOWN]) + more
