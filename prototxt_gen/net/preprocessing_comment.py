"""The preprocessing of a deploy net's images, as JSON in a comment of its prototxt: Caffe's format has no field for it.

# prototxt-gen preprocessing: {"formula": "(pixel - mean) * scale", "scale": 0.017, "mean": [104, 117, 123]}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

_MARK = "# prototxt-gen preprocessing: "


def preprocessing_comment(fields: Mapping[str, Any]) -> str:
    """Return the comment line with these fields; "" if there are none."""
    return f"{_MARK}{json.dumps(dict(fields))}\n" if fields else ""


def read_preprocessing_comment(path: str | PathLike[str]) -> dict[str, Any]:
    """Return the fields in the comments at the head of a prototxt; {} if there are none, or they are damaged."""
    try:
        with Path(path).open(encoding="utf-8", errors="replace") as file:
            for line in file:
                if not line.startswith("#"):
                    return {}
                if line.startswith(_MARK):
                    fields = json.loads(line.removeprefix(_MARK))
                    return fields if isinstance(fields, dict) else {}
    except (OSError, ValueError):
        pass
    return {}
