"""Real models beside the checkout, where they are there: each converts and verifies, or is refused with a reason."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from converters import read_subject
from converters.convert import write_onnx, write_torch
from converters.inputs import seeded
from converters.verification import verify
from prototxt_gen.errors import PrototxtGenError

MODELS = Path(__file__).parents[2] / "shared" / "models"
IGNORED = (
    "quantization_kmean_num_cluster",
    "quantization_num_segment",
    "quantization_kmean_cluster_centers_file",
    "quantization_kmean_cluster_indices_file",
    "conserve_gpu_memory_test",
    "parameter_compress",
)
"""Of cifar100-nin-v1: where codebooks lie that are not used, since every layer says `parameter_compress: false`."""
READING: dict[str, dict[str, Any]] = {
    "cifar10-armcmsis-m4-h5": {"shapes": {"data": (1, 3, 32, 32)}},
    "cifar10-resnet20-junyuseu": {"shapes": {"Data1": (1, 3, 32, 32)}},
    "cifar10-seresnet20-ljf": {"shapes": {"data": (1, 3, 32, 32)}},
    "cifar100-nin-v1": {"ignore_fields": IGNORED},
    "lenet-fooling-old": {"shapes": {"data": (1, 1, 28, 28)}},
    "normface-lenet-prelu": {"shapes": {"data": (1, 1, 28, 28)}},
}
"""What the files do not tell."""
REFUSED = {"normface-lenet-prelu": "LabelSpecificRescale", "xilinx-face-detection": "GSTiling"}
"""Types that are not known, and so cannot be converted."""


def rows() -> list[dict[str, str]]:
    if not (MODELS / "index.tsv").is_file():
        return []
    with (MODELS / "index.tsv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


ROWS = {row["name"]: row for row in rows()}


def subject(name: str) -> Any:
    row = ROWS[name]
    folder = MODELS / name
    return read_subject(folder / row["prototxt"], folder / row["weights"], **READING.get(name, {}))


def test_there_are_models() -> None:
    if not ROWS:
        pytest.skip("no real models are beside the checkout")


@pytest.mark.parametrize("name", [name for name in ROWS if name not in REFUSED])
def test_converts_and_verifies(name: str, tmp_path: Path) -> None:
    one = subject(name)
    found = verify(one, seeded(one), ("pycaffe", "torch", "onnx"))
    assert found.verified, found
    done = write_onnx(one, tmp_path / "m.onnx")
    assert done.report is not None and done.report.verified
    done = write_torch(one, tmp_path / "made")
    assert done.report is not None and done.report.verified


@pytest.mark.parametrize("name", [name for name in ROWS if name in REFUSED])
def test_is_refused_for_a_true_reason(name: str) -> None:
    with pytest.raises(PrototxtGenError, match=REFUSED[name]):
        subject(name)
