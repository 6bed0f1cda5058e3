"""Failures during training with real Caffe: no snapshot is lost, and one sentence names the layer."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prototxt_gen import caffemodel
from prototxt_gen.caffemodel import NewLayer
from prototxt_gen.common.errors import PrototxtGenError, WeightsError
from prototxt_gen.real_caffe.child_process import ChildProcess, last_error_message, usual_error_text
from prototxt_gen.train.signals import TestInterrupted
from prototxt_gen.train.weight_transfer import match_layers
from tests.support import train_support as support
from tests.support.caffe_support import caffe_or_skip
from tests.support.train_support import wait_for

pytestmark = pytest.mark.caffe
PYCAFFE = ("--backend", "pycaffe")


@pytest.fixture(scope="module", autouse=True)
def caffe_there() -> None:
    caffe_or_skip()


def test_ctrl_c_writes_a_snapshot_and_exits(tmp_path: Path) -> None:
    folder = support.folder(tmp_path)
    process = support.begin(folder, *PYCAFFE, "--max-iter", "1000000", "--snapshot-every", "0")
    wait_for(process, folder / "out" / "small_metrics.csv", 200)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    (state,) = (folder / "out").glob("*.solverstate")
    assert f"stopped at iteration {caffemodel.read_solverstate(state).iter}\n" in out


def children(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="the limits of another process are Linux's")
def test_failed_snapshot_leaves_earlier_ones_intact(tmp_path: Path) -> None:
    """Limiting the size of files of Caffe's process to 2 KB has the effect of a full disk."""
    folder = support.folder(tmp_path)
    process = support.begin(folder, *PYCAFFE, "--max-iter", "1000000", "--snapshot-every", "100")
    wait_for(process, folder / "out" / "small_iter_100.solverstate")
    for child in children(process.pid):
        resource.prlimit(child, resource.RLIMIT_FSIZE, (2000, 2000))
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    states = sorted((folder / "out").glob("small*state"), key=lambda path: int(path.stem.rpartition("_")[2]))
    last = err.strip().splitlines()[-1]
    failed = 100 * (len(states) + 1)
    assert last.startswith(f"error: the snapshot of iteration {failed} could not be written to out: Caffe: io.cpp")
    assert last.endswith(f"out/{states[-1].name} is intact")
    for state in states:
        support.history(state)
        support.weights(state.with_suffix(".caffemodel"))
    assert not list((folder / "out").glob(".*"))


@pytest.mark.parametrize("backend", ["pycaffe", "torch"])
def test_removed_output_folder_is_recreated_and_reported(backend: str, tmp_path: Path) -> None:
    """Otherwise, rows of the metrics would be written to a deleted file without a warning."""
    folder = support.folder(tmp_path)
    process = support.begin(folder, "--backend", backend, "--max-iter", "1000000", "--snapshot-every", "50")
    wait_for(process, folder / "out" / "small_iter_50.solverstate")
    (folder / "out").rename(folder / "gone")
    wait_for(process, folder / "out" / "small_metrics.csv", 1000)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.count("out/small_metrics.csv was removed during training: a new file begins here") == 1
    assert list((folder / "out").glob("*.solverstate"))


def test_closed_stderr_is_no_error(tmp_path: Path) -> None:
    """A file opened later would get the closed stream's descriptor, and Caffe's process would write into it."""
    folder = support.folder(tmp_path)
    command = f"{sys.executable} -m prototxt_gen train solver.prototxt --backend pycaffe --max-iter 2 2>&-"
    done = subprocess.run(
        command, shell=True, cwd=folder, stdout=subprocess.PIPE, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(support.ROOT)}, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert "trained to iteration 2" in done.stdout
    assert (folder / "out" / "small_metrics.csv").read_text().count("\n") == 3


def test_data_set_truncated_during_training_is_reported(tmp_path: Path) -> None:
    folder = support.folder(tmp_path)
    process = support.begin(folder, *PYCAFFE, "--max-iter", "1000000", "--snapshot-every", "50")
    wait_for(process, folder / "out" / "small_iter_50.solverstate")
    os.truncate(folder / "set" / "data.mdb", 4096)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.strip().splitlines()[-1].startswith("error: ")
    assert "Traceback" not in err
    assert "truncated" in err
    assert (folder / "out" / "small_iter_50.caffemodel").exists()


class Interrupted:
    """A pipe that is interrupted by a signal at its first line: before, after or during reading."""

    def __init__(self, pipe: Any, when: str) -> None:
        self.pipe, self.when = pipe, when

    def readline(self) -> str:
        when, self.when = self.when, ""
        if when:
            if when != "before":
                self.pipe.read(3) if when == "within" else self.pipe.readline()
            raise TestInterrupted
        return str(self.pipe.readline())

    def close(self) -> None:
        self.pipe.close()


@pytest.mark.parametrize("when", ["before", "within", "after"])
def test_request_after_an_interrupted_request_is_answered(tmp_path: Path, when: str) -> None:
    """After an exception at any point, the next answer belongs to the next request."""
    child = ChildProcess("tests.support.echoing_child", tmp_path / "log")
    child.request("start")
    child.process.stdout = Interrupted(child.process.stdout, when)  # type: ignore[assignment]
    with pytest.raises(TestInterrupted):
        child.request("say", words="one")
    assert [child.request("say", words=words) for words in ("two", "three")] == ["two", "three"]
    child.close()


def test_unread_request_does_not_hide_the_error_of_a_dead_child(tmp_path: Path) -> None:
    """A pipe tries to write its buffer again when it is closed, which must not hide the first error."""
    child = ChildProcess("this", tmp_path / "log")
    child.process.wait()
    with pytest.raises(PrototxtGenError, match="Caffe's process ended with exit status 0"):
        child.request("step")
    child.close()


@pytest.mark.parametrize(("old", "new", "words"), [
    ('source: "set" batch_size: 7', 'source: "gone" batch_size: 7', r"layer 'data' (Data): gone does not exist"),
    ("num_output: 12", "num_output: 0", "layer 'ip1' (InnerProduct): num_output must be at least 1"),
    ('type: "ReLU"', 'type: "Nonesuch"', "layer 'relu1' (Nonesuch): creation: "),
    ('type: "xavier" } } }\nlayer { name: "acc', 'type: "xavierx" } } }\nlayer { name: "acc',
     "layer 'ip2' (InnerProduct): inner_product_param.weight_filler: there is no filler 'xavierx'"),
    ("num_output: 4 weight", "num_output: 2 weight", "layer 'accuracy' (Accuracy): forward: "),
])  # fmt: skip
def test_errors_of_caffe_name_the_layer(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in support.RANDOM
    folder = support.folder(tmp_path, support.RANDOM.replace(old, new))
    out, err = support.train(folder, *PYCAFFE, status=1)
    assert not out
    assert f"error: {words}" in err or f": {words}" in err
    assert "Traceback" not in err


def test_a_layer_of_another_shape_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "given.caffemodel"
    caffemodel.write(file, [NewLayer("ip", "InnerProduct", [np.zeros((4, 6)), np.zeros((1, 4))])])
    taken, lines = match_layers(file, {"ip": [(4, 6), (4,)]})
    assert [np.shape(blob) for blob in taken[0].blobs if isinstance(blob, np.ndarray)] == [(4, 6), (4,)]
    assert lines == ["layer 'ip': matched, 4x6, 4"]
    with pytest.raises(WeightsError, match="blob 0 is 4x6 in the file, 6x4 in the net"):
        match_layers(file, {"ip": [(6, 4), (4,)]})


def test_nets_with_unfed_inputs_are_refused(tmp_path: Path) -> None:
    text = support.RANDOM.replace('type: "Data"', 'type: "Input"').replace("data_param", "memory_data_param")
    folder = support.folder(tmp_path, text)
    _, err = support.train(folder, *PYCAFFE, status=1)
    assert "layer 'data' (Input)" in err


def test_last_error_message_of_other_caffes_names_the_layer() -> None:
    log = "I1122 16:37:01.1 12 net.cpp:84] Creating Layer conv1\nI1122 16:37:01.1 12 net.cpp:380] conv1 -> conv1\n"
    failed = "F1122 16:37:01.1 12 filler.hpp:288] Check failed: false Unknown filler name: x\n*** stack trace: ***\n"
    assert last_error_message(log + failed).startswith("layer 'conv1': Caffe: filler.hpp:288: Check failed: false")
    running = log + "I1122 16:37:02.1 12 solver.cpp:57] Solver scaffolding done.\n" + failed
    assert last_error_message(running).startswith("Caffe: filler.hpp:288")
    assert last_error_message("Traceback …\nValueError: no such thing") == "Caffe: ValueError: no such thing"
    assert last_error_message("some library: hello\n") == ""
    assert usual_error_text("setup of layer 'x' (LRN): a.cpp:1: bad") == "layer 'x' (LRN): setup: a.cpp:1: bad"
