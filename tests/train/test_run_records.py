"""Records of a run (metrics, events, curve, log lines), and the memory estimate before it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prototxt_gen.analysis import analyse
from prototxt_gen.common.errors import PrototxtGenError
from prototxt_gen.net.prototxt_reader import parse_net
from prototxt_gen.net.solver import Solver
from prototxt_gen.schema.caffe_proto import SolverParameter
from prototxt_gen.train import loss_curve, metrics_csv, progress_display
from prototxt_gen.train.backend import Settings, named_outputs
from prototxt_gen.train.memory_estimate import estimate_memory, free_memory
from prototxt_gen.train.run_records import named_scores
from tests.support.counting_backend import Counter, run


def test_metrics_of_a_resumed_run_equal_an_uninterrupted_run(tmp_path: Path) -> None:
    def rows(path: Path) -> list[dict[str, str]]:
        return [
            {k: v for k, v in row.items() if k != "seconds"} for row in metrics_csv.read_metrics(path / "n_metrics.csv")
        ]

    fields: dict[str, Any] = {"test_iter": [1], "test_interval": 4}
    run(Counter(), tmp_path / "whole", **fields)
    run(Counter(), tmp_path / "broken", **fields, max_iter=7)
    with (tmp_path / "broken" / "n_metrics.csv").open("a") as file:
        file.write("7,0.1,0.2")  # what a killed process leaves of a row
    resumed = Counter()
    resumed.iteration = 4
    run(resumed, tmp_path / "broken", **fields)
    assert rows(tmp_path / "broken") == rows(tmp_path / "whole")
    assert [row.get("test/accuracy") for row in rows(tmp_path / "whole")][:5] == ["0", None, None, None, "0.04"]


def test_late_column_is_added_to_the_whole_file(tmp_path: Path) -> None:
    table = metrics_csv.MetricsTable(tmp_path / "metrics.csv")
    table.add({"iteration": 0, "loss": 1.5})
    table.add({"iteration": 1, "loss": 1.25, "test/accuracy": 0.5})
    table.close()
    rows = list(metrics_csv.read_metrics(tmp_path / "metrics.csv"))
    assert [row.get("test/accuracy") for row in rows] == [None, "0.5"]
    assert [row["loss"] for row in rows] == ["1.5", "1.25"]


def test_foreign_csv_file_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("name,price\nx,1\n")
    with pytest.raises(PrototxtGenError, match="not a metrics file"):
        metrics_csv.MetricsTable(tmp_path / "metrics.csv")
    assert (tmp_path / "metrics.csv").read_text().startswith("name,price")


def test_tensorboard_reads_the_events(tmp_path: Path) -> None:
    loader: Any = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    run(Counter(), tmp_path, test_iter=[1], test_interval=5, display=2, average_loss=2)
    (file,) = (tmp_path / "n_events").glob("events.out.tfevents.*")
    found: dict[str, dict[int, float]] = {}
    for event in loader.LegacyEventFileLoader(str(file)).Load():
        for value in event.summary.value:
            found.setdefault(value.tag, {})[event.step] = value.simple_value
    assert found["test/accuracy"] == {0: 0.0, 5: pytest.approx(0.05), 10: pytest.approx(0.1)}
    assert found["loss"] == pytest.approx({i: (1 / i + 1 / (i + 1)) / 2 if i else 1.0 for i in range(0, 10, 2)})


def test_the_curve_is_drawn(tmp_path: Path) -> None:
    run(Counter(), tmp_path, test_iter=[1], test_interval=5)
    assert (tmp_path / "n_curve.png").read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "n_curve.svg").read_text()
    assert text.count("<!-- test/accuracy -->") == 1
    assert text.count("<!-- loss -->") == 1
    pictures = [tmp_path / "again" / f"n_curve.{extension}" for extension in ("png", "svg")]
    again = loss_curve.draw_curve(tmp_path / "n_metrics.csv", pictures, "n")
    assert again == pictures
    for path in again:
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()


def test_log_lines_are_at_caffes_iterations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(Counter(), tmp_path, display=5, average_loss=2)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("iteration 0: loss 1, rate 0.1,")
    assert lines[1].startswith(f"iteration 5: loss {(1 / 5 + 1 / 6) / 2:.5g}, rate 0.1,")
    assert lines[2] == f"snapshot: {tmp_path / 'n_iter_10.solverstate'}"


def test_speed_counts_images() -> None:
    speed = progress_display.Speed(32)
    assert speed.words() == "0 images/s"
    speed.took(0.5)
    assert speed.words() == "64 images/s"
    assert speed.left(7200) == "1:00:00"


def test_outputs_and_scores_are_named() -> None:
    blobs = {"loss": np.float32(1.5).reshape(()), "each": np.array([[1.0, 2.0]]), "label": np.zeros(64)}
    assert named_outputs(blobs) == {"loss": 1.5, "each[0]": 1.0, "each[1]": 2.0}
    assert named_scores([{"a": 1.0}]) == {"test/a": 1.0}
    assert named_scores([{"a": 1.0}, {"a": 2.0}]) == {"test0/a": 1.0, "test1/a": 2.0}


def test_every_run_has_a_seed() -> None:
    assert Settings().run_seed(Solver(SolverParameter())) == 1
    assert Settings().run_seed(Solver(SolverParameter(random_seed=7))) == 7
    assert Settings(seed=0).run_seed(Solver(SolverParameter(random_seed=7))) == 0


def test_memory_estimate_equals_a_hand_count() -> None:
    net = parse_net(
        'input: "x" input_shape { dim: 4 dim: 10 } '
        'layer { name: "a" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 5 } }'
    )
    found = analyse(net)
    sgd, adam = estimate_memory(found, [found], "SGD", 4), estimate_memory(found, [], "Adam", 4)
    assert sgd.bytes_per_image == 2 * 4 * (10 + 5)
    assert sgd.fixed_bytes == 3 * 4 * 55 + 4 * 4 * 15
    assert adam.fixed_bytes == 4 * 4 * 55
    assert sgd.largest_batch(sgd.fixed_bytes + 7 * sgd.bytes_per_image + 1) == 7
    assert sgd.largest_batch(sgd.total_bytes) == 4
    assert "TOO LITTLE" in sgd.sentence(sgd.total_bytes - 1)
    assert "TOO LITTLE" not in sgd.sentence(sgd.total_bytes)
    assert (free_memory() or 1 << 30) > 1 << 20
