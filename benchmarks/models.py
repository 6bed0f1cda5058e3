"""Real models, trained by others: each to ONNX and PyTorch, what was written run and compared with real Caffe.

    python -m benchmarks models [FOLDER]

FOLDER has an `index.tsv` with a line for each model, its name, prototxt and weights, and a folder of that name.
"""

from __future__ import annotations

import csv
import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.table import machine, write_down
from converters import read_net_with_weights
from converters.common.net_with_weights import NetWithWeights
from converters.pytorch_export.output_files import load_folder, run_module
from converters.verification.comparison_inputs import seeded_inputs
from converters.verification.runtimes import run_onnx_export
from converters.verification.verify import RuntimeOutcome, VerificationReport, verify
from converters.write_models import write_onnx, write_torch
from prototxt_gen.common.errors import PrototxtGenError

TITLE = "Real models"
FOLDER = Path(__file__).parents[2] / "shared" / "models"
PAGE = Path(__file__).with_name("models.md")
IGNORED = (
    "quantization_kmean_num_cluster",
    "quantization_num_segment",
    "quantization_kmean_cluster_centers_file",
    "quantization_kmean_cluster_indices_file",
    "conserve_gpu_memory_test",
    "parameter_compress",
)
"""Of cifar100-nin-v1: where codebooks lie that are not used, since every layer says `parameter_compress: false`."""
READING: Mapping[str, Mapping[str, Any]] = {
    "cifar10-armcmsis-m4-h5": {"shapes": {"data": (1, 3, 32, 32)}},
    "cifar10-resnet20-junyuseu": {"shapes": {"Data1": (1, 3, 32, 32)}},
    "cifar10-seresnet20-ljf": {"shapes": {"data": (1, 3, 32, 32)}},
    "cifar100-nin-v1": {"ignore_fields": IGNORED},
    "lenet-fooling-old": {"shapes": {"data": (1, 1, 28, 28)}},
    "normface-lenet-prelu": {"shapes": {"data": (1, 1, 28, 28)}},
}
"""What the files do not tell."""


@dataclass(frozen=True)
class Row:
    """What became of one model. Errors are relative to the blob's largest value; `excused`: rounding carried on.

    `alone` says why it was not compared with real Caffe; the errors are against PyTorch then.
    """

    name: str
    origin: str
    layers: int = 0
    onnx: float = 0.0
    torch: float = 0.0
    blobs: int = 0
    excused: int = 0
    seconds: float = 0.0
    refused: str = ""
    alone: str = ""
    verified: bool = False

    def cells(self) -> tuple[str, ...]:
        """Return the cells of its line."""
        if self.refused:
            return (self.name, self.origin, str(self.layers or ""), f"refused: {self.refused}", "", "", "")
        mark = "" if self.verified else " **differs**"
        told = f"{self.blobs}" + (f", {self.excused} excused" if self.excused else "")
        onnx, torch = f"{self.onnx:.1e}{mark}", f"{self.torch:.1e}{mark}"
        if self.alone:
            onnx, torch = f"{onnx} against PyTorch; {self.alone}", ""
        return (self.name, self.origin, str(self.layers), onnx, torch, told, f"{self.seconds:.1f}")


def listed(folder: Path) -> dict[str, dict[str, str]]:
    """Return the lines of the folder's index by name; none where it is not there."""
    if not (folder / "index.tsv").is_file():
        return {}
    with (folder / "index.tsv").open(encoding="utf-8") as file:
        return {row["name"]: row for row in csv.DictReader(file, delimiter="\t")}


def caffe_model(folder: Path, row: Mapping[str, str]) -> NetWithWeights:
    """Read a model of the folder."""
    place = folder / row["name"]
    return read_net_with_weights(place / row["prototxt"], place / row["weights"], **READING.get(row["name"], {}))


def measured(folder: Path, row: Mapping[str, str]) -> Row:
    """Convert one model, run what was written, and compare."""
    made = Row(row["name"], _origin(folder / row["name"]), int(row.get("layers") or 0))
    start = time.perf_counter()
    try:
        one = caffe_model(folder, row)
        with tempfile.TemporaryDirectory() as name:
            return _compared(made, one, Path(name), start)
    except PrototxtGenError as error:
        return replace(made, refused=_reason(str(error), folder / row["name"]))


def _compared(made: Row, one: NetWithWeights, place: Path, start: float) -> Row:
    onnx, folder = place / "net.onnx", place / "net"
    write_onnx(one, onnx, verify_output=False)
    write_torch(one, folder, verify_output=False)
    seconds = time.perf_counter() - start
    written = {
        "ONNX file": lambda _, inputs: run_onnx_export(one, onnx, inputs),
        "PyTorch folder": lambda _, inputs: run_module(one, load_folder(folder), inputs),
    }
    report = verify(one, seeded_inputs(one), ("pycaffe", "torch"), written)
    outcomes = {outcome.runtime: outcome for outcome in report.outcomes}
    alone = "" if report.reference == "pycaffe" else _reason(outcomes["pycaffe"].reason, Path())
    onnx_error, torch_error = (_worst(outcomes[runtime]) for runtime in written)
    blobs, excused = _counts(report)
    return replace(
        made,
        layers=len(one.net.layers),
        onnx=onnx_error,
        torch=torch_error,
        blobs=blobs,
        excused=excused,
        seconds=seconds,
        alone=alone,
        verified=report.verified,
    )


def _worst(outcome: RuntimeOutcome) -> float:
    if outcome.state != "ran":
        raise PrototxtGenError(f"{outcome.runtime}: {outcome.reason}")
    return max((one.error for one in outcome.comparisons), default=float("inf"))


def _counts(report: VerificationReport) -> tuple[int, int]:
    """Return how many blobs were compared, and how many of these comparisons were excused."""
    found = [one for outcome in report.compared for one in outcome.comparisons]
    return len({one.blob for one in found}), sum(one.excused for one in found)


def _origin(folder: Path) -> str:
    """Return the repository a model is from, as its meta.json tells."""
    meta = folder / "meta.json"
    told = json.loads(meta.read_text(encoding="utf-8")).get("source", "") if meta.is_file() else ""
    return str(told).removeprefix("github:").replace("pypi:", "PyPI ").replace("==", " ")


def _reason(text: str, folder: Path) -> str:
    """Return an error's sentences without the folder it was found in and without advice, on one line of a table."""
    lines = [line.strip() for line in text.replace(f"{folder}/", "").splitlines()]
    told = [line.partition(" (LayerParameter has no field")[0].partition("; if it does not")[0] for line in lines]
    first, *rest = [line for line in told if line]
    return " ".join([first, "; ".join(rest)]).strip().replace("|", "\\|")


HEADINGS = ("model", "from", "layers", "ONNX", "PyTorch", "blobs", "seconds")


def page(rows: Sequence[Row]) -> str:
    """Return the table and what it sums up to."""
    done = [row for row in rows if row.verified and not row.alone]
    alone = [row for row in rows if row.verified and row.alone]
    refused = [row for row in rows if row.refused]
    worst = max((max(row.onnx, row.torch) for row in done), default=0.0)
    lines = [f"| {' | '.join(HEADINGS)} |", "|---|---|---:|---:|---:|---:|---:|"]
    lines += [f"| {' | '.join(row.cells())} |" for row in rows]
    told = (
        f"{len(rows)} models: {len(done)} converted and as real Caffe has them, worst error {worst:.1e}; "
        f"{len(alone)} of a type this Caffe lacks, so that only ONNX and PyTorch are compared; "
        f"{len(refused)} refused; {len(rows) - len(done) - len(alone) - len(refused)} wrong."
    )
    return f"{machine()}.\n\n{told}\n\n" + "\n".join(lines)


def all_of(folder: Path) -> Iterator[Row]:
    """Yield a row for each model of the folder, printing it."""
    for row in listed(folder).values():
        made = measured(folder, row)
        print("  ".join(filter(None, made.cells())), flush=True)
        yield made


def main(arguments: Sequence[str]) -> int:
    """Measure the models of a folder and write the page; return how many are wrong."""
    folder = Path(arguments[0]) if arguments else FOLDER
    if not listed(folder):
        print(f"{TITLE}: nothing measured: {folder} has no index.tsv" if arguments else f"{TITLE}: none are here")
        return 0
    rows = list(all_of(folder))
    write_down("models", page(rows), PAGE)
    return sum(not (row.verified or row.refused) for row in rows)
