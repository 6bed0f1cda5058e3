"""Sizes from which PriorBox cannot compute boxes are errors that name the layer."""

from __future__ import annotations

import pytest

from prototxt_gen import analyse, parse_net


@pytest.mark.parametrize(
    "sizes",
    ["min_size: nan", "min_size: inf", "min_size: 0", "min_size: 4 max_size: nan", "min_size: 4 aspect_ratio: 0",
     "min_size: 4 aspect_ratio: -2", "min_size: 4 aspect_ratio: nan"],
)  # fmt: skip
def test_invalid_sizes_are_refused(sizes: str) -> None:
    text = (
        'input: "f" input_shape { dim: 1 dim: 2 dim: 3 dim: 3 } input: "d" input_shape { dim: 1 dim: 3 dim: 9 dim: 9 }'
        f'layer {{ name: "p" type: "PriorBox" bottom: "f" bottom: "d" top: "p" prior_box_param {{ {sizes} }} }}'
    )
    (error,) = [row.error for row in analyse(parse_net(text)).rows if row.error is not None]
    assert "layer 'p' (PriorBox)" in str(error) and "greater than 0" in str(error)
