"""Batches depend only on (seed, batch index), with any number of worker processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prototxt_gen.data.batch_loader import BatchLoader, LoaderSpec, sample_index
from prototxt_gen.data.data_errors import DataError
from prototxt_gen.data.make import make
from prototxt_gen.data.worker_processes import _Worker
from tests.support import data_samples as samples

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def source(tmp_path: Path) -> str:
    """Return an LMDB of 23 images, 3 x 12 x 12; sample n has label n."""
    x = np.stack([samples.picture(n, 12, 12) for n in range(23)])
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(23))
    return str(make(tmp_path / "a.npz", tmp_path / "lmdb").path)


def _batches(source: str, count: int, start: int = 0, **fields: Any) -> list[tuple[Any, Any]]:
    how = {"crop": 12, "pad": 2, "mirror": True, "lighting": 0.1}
    given = {"source": source, "batch_size": 5, "seed": 9, "augment": how, "start": start, **fields}
    loader = BatchLoader(LoaderSpec.from_json(json.dumps(given)))
    try:
        return [loader.next() for _ in range(count)]
    finally:
        loader.close()


def _equal(one: list[tuple[Any, Any]], other: list[tuple[Any, Any]]) -> bool:
    pairs = zip(one, other, strict=True)
    return all(np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1]) for a, b in pairs)


def test_every_epoch_has_every_sample_once_in_a_new_order() -> None:
    orders = [[sample_index(epoch * 23 + n, 23, 4, True) for n in range(23)] for epoch in range(3)]
    assert all(sorted(order) == list(range(23)) for order in orders)
    assert orders[0] != orders[1] != orders[2]
    assert [sample_index(n, 23, 4, False) for n in (22, 23, 50)] == [22, 0, 4]


def test_any_number_of_workers_gives_the_same_batches(source: str) -> None:
    alone = _batches(source, 12, workers=0)
    assert alone[0][0].shape == (5, 3, 12, 12)
    assert alone[0][0].dtype == alone[0][1].dtype == np.float32
    assert sorted(np.concatenate([labels for _, labels in alone])[:23]) == list(range(23))
    for workers in (1, 3):
        assert _equal(alone, _batches(source, 12, workers=workers))
    assert not _equal(alone, _batches(source, 12, workers=0, seed=10))


def test_seek_reaches_any_batch_exactly(source: str) -> None:
    whole = _batches(source, 12, workers=0)
    assert _equal(whole[7:], _batches(source, 5, start=7, workers=2))
    loader = BatchLoader(LoaderSpec(source, 5, seed=9, workers=2, augment=_augment()))
    for place in (3, 4, 0, 11, 11, 2):
        loader.seek(place)
        assert _equal([loader.next()], [whole[place]])
        assert loader.next_batch == place + 1
    loader.close()
    with pytest.raises(DataError, match="before the first"):
        loader.seek(-1)


def _augment() -> Any:
    from prototxt_gen.data.augmentation import Augment

    return Augment.from_mapping({"crop": 12, "pad": 2, "mirror": True, "lighting": 0.1})


def test_test_phase_reads_in_order_without_randomness(source: str) -> None:
    one, other = (_batches(source, 5, phase="TEST", workers=workers, seed=workers) for workers in (0, 2))
    assert _equal(one, other)
    assert np.concatenate([labels for _, labels in one]).tolist() == [*range(23), 0, 1]


def test_specs_survive_json() -> None:
    spec = LoaderSpec.from_json('{"source": "x", "batch_size": 4, "augment": {"preset": "imagenet"}, "workers": 3}')
    assert LoaderSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize(("text", "message"), [
    ("{", "param_str is not JSON"),
    ("[]", "must be a JSON object"),
    ('{"batch_size": 3}', "source is missing"),
    ('{"source": "x", "batchsize": 3}', "no field 'batchsize'; did you mean 'batch_size'"),
    ('{"source": "x", "batch_size": 0}', "batch_size must be above 0"),
    ('{"source": "x", "batch_size": 1, "phase": "train"}', "phase is TRAIN or TEST"),
    ('{"source": "nowhere", "batch_size": 1}', "nowhere does not exist"),
])  # fmt: skip
def test_errors_of_invalid_specs_are_one_sentence(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        BatchLoader(LoaderSpec.from_json(text))


def test_error_in_a_worker_is_raised_and_the_loader_continues(tmp_path: Path) -> None:
    src = samples.class_folders(tmp_path / "src", each=5)
    (src / "dog" / "a 2.png").write_bytes(b"no")
    loader = BatchLoader(LoaderSpec(str(src), 2, "TEST", workers=2))
    for _ in range(3):
        loader.next()
    with pytest.raises(DataError, match=r"dog/a 2.png: not a picture"):
        loader.next()
    loader.seek(4)
    assert loader.next()[1].tolist() == [1, 1]
    loader.close()


def test_image_of_another_shape_is_named(tmp_path: Path) -> None:
    src = samples.class_folders(tmp_path / "src", ("a",))
    samples.write_picture(src / "a" / "b.png", samples.picture(1, 20, 20))
    with pytest.raises(DataError, match=r"sample 3 has shape \(3, 20, 20\) .*, the first \(3, 12, 16\)"):
        _plain(str(src)).next()


def _plain(source: str) -> BatchLoader:
    return BatchLoader(LoaderSpec(source, 4, "TEST", workers=0))


def test_killed_worker_is_an_error_and_no_deadlock(source: str) -> None:
    loader = BatchLoader(LoaderSpec(source, 5, workers=1))
    loader.next()
    assert loader._workers is not None
    os.kill(loader._workers.workers[0].process.pid, signal.SIGKILL)
    with pytest.raises(DataError, match="a data worker ended by SIGKILL: by another process"):
        for _ in range(5):
            loader.next()
    loader.close()


@pytest.mark.parametrize("place", ["before", "after"])
def test_interrupt_while_waiting_loses_no_batch(source: str, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    whole = _batches(source, 8, workers=0)
    loader = BatchLoader(LoaderSpec(source, 5, seed=9, workers=2, augment=_augment()))
    loader.next()
    answer = _Worker.answer

    def interrupted(self: _Worker, serial: int) -> str | None:
        if place == "after":
            answer(self, serial)
        raise KeyboardInterrupt

    monkeypatch.setattr(_Worker, "answer", interrupted)
    with pytest.raises(KeyboardInterrupt):
        loader.next()
    monkeypatch.setattr(_Worker, "answer", answer)
    assert _equal([loader.next() for _ in range(7)], whole[1:])
    loader.close()


_PARENT = """
import sys
from prototxt_gen.data.batch_loader import BatchLoader, LoaderSpec
loader = BatchLoader(LoaderSpec(sys.argv[1], 5, workers=2))
loader.next()
print(*(worker.process.pid for worker in loader._workers.workers), flush=True)
sys.stdin.read()
"""


def test_workers_do_not_outlive_a_killed_parent_and_ignore_ctrl_c(source: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, source], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    )
    assert parent.stdout is not None
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    for pid in workers:
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
    time.sleep(0.2)
    assert all(_alive(pid) for pid in workers)
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 20
    while any(_alive(pid) for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _alive(pid: int) -> bool:
    """Return whether a process runs; one that has ended but was not waited for counts as ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_too_little_memory_is_reported_before_training(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, start: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataError, match="use fewer workers or a smaller batch_size"):
        BatchLoader(LoaderSpec(source, 5, workers=1))
