"""Training with real Caffe, in a child process, so that a run can be broken off and resumed to the very same weights.

What a run does at iteration i is a function of the solver, the weights, its history, the seed and i alone:

* Data, ImageData and HDF5Data are replaced by Python layers that give any batch by its index (`caffe_nets`, `batches`).
* Before every step Caffe's random numbers are seeded anew from (seed, i): Dropout, DummyData and whatever else draws.
* Caffe computes one iteration at a time (`solver.step(1)`); testing, showing and snapshots are the shell's.

So a snapshot needs no more than Caffe's own two files, and Caffe itself can go on from them. On one thread
(OPENBLAS_NUM_THREADS=1) the resumed run's weights equal the unbroken one's bit for bit.
"""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prototxt_gen import caffemodel
from prototxt_gen.caffemodel.types import NewLayer
from prototxt_gen.common.errors import WeightsError
from prototxt_gen.net.render import net_text
from prototxt_gen.net.solver import Solver
from prototxt_gen.real_caffe.child_process import Child
from prototxt_gen.train import missing_backward, pycaffe_nets
from prototxt_gen.train.backend import Settings, Step
from prototxt_gen.train.lr_policies import Policy
from prototxt_gen.train.schedule import tests_before
from prototxt_gen.train.snapshots import weights_of, write_state
from prototxt_gen.train.weight_transfer import in_inverse_std, matched


class PycaffeBackend:
    """See the module. Nets are made in the constructor; NetError where Caffe refuses them, or cannot train them."""

    def __init__(self, solver: Solver, settings: Settings) -> None:
        self.solver, self.settings = solver, settings
        self.seed = settings.seed_for(solver)
        self.net, self.test_nets = solver.train_net(), solver.test_nets()
        self.policy = Policy(solver.params)
        self._iteration = 0
        self._work = tempfile.TemporaryDirectory(prefix="prototxt-gen-caffe-", ignore_cleanup_errors=True)
        self.folder = Path(self._work.name)
        try:
            self._write_nets()
            self.child = Child("prototxt_gen.train.pycaffe_process", self.folder / "caffe.log")
            self.shapes = self._start()
            self._refuse_inert()
        except BaseException:
            self.close()
            raise

    def _write_nets(self) -> None:
        feeding = pycaffe_nets.Feeding(self.seed, Path(self.solver.source).parent, self.settings.workers)
        train = pycaffe_nets.for_caffe(self.net, "TRAIN", feeding)
        self._write("train.prototxt", net_text(train))
        for index, net in enumerate(self.test_nets):
            self._write(f"test{index}.prototxt", net_text(pycaffe_nets.for_caffe(net, "TEST", feeding)))
        prefix = self.folder / "snapshot" / "raw"
        text = pycaffe_nets.solver_for_caffe(self.solver, self.folder / "train.prototxt", prefix, self.seed)
        self._write("solver.prototxt", text)

    def _write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text, encoding="utf-8", errors="surrogateescape")

    def _start(self) -> dict[str, list[tuple[int, ...]]]:
        tests = [str(self.folder / f"test{index}.prototxt") for index in range(len(self.test_nets))]
        solver = str(self.folder / "solver.prototxt")
        shapes = self.child.ask("start", solver=solver, tests=tests, gpu=self.settings.gpu)
        return {name: [tuple(shape) for shape in blobs] for name, blobs in shapes.items()}

    def _refuse_inert(self) -> None:
        """UnsupportedError where a learned layer is below one whose backward pass, tried here, does nothing."""
        for layer in missing_backward.suspects(self.net, self.shapes):
            shapes = self.child.ask("blob_shapes", blobs=[bottom.blob for bottom in layer.bottoms])
            self._write("alone.prototxt", missing_backward.alone(layer, shapes))
            if not self.child.ask("goes_back", net=str(self.folder / "alone.prototxt")):
                raise missing_backward.refusal(layer)

    @property
    def iteration(self) -> int:
        """The number of updates made."""
        return self._iteration

    def remarks(self) -> list[str]:
        """Return what keeps a resumed run of these nets from being exact."""
        return list(pycaffe_nets.remarks(self.net))

    def step(self) -> Step:
        """Run one iteration of Caffe's solver."""
        done = self.iteration
        batch = done * self.solver.params.iter_size
        answer = self.child.ask("step", seed=self._draw("step"), batch=batch)
        self._iteration += 1
        loss = answer["loss"] / self.solver.params.iter_size
        return Step(done, loss, self.policy.rate(done), _named(answer["outputs"]))

    def _draw(self, what: str) -> int:
        """Return a seed for Caffe that depends on the run's seed, the iteration and what it is for."""
        return zlib.crc32(f"{self.seed} {what} {self.iteration}".encode())

    def test(self) -> list[Mapping[str, float]]:
        """Run every test net over its test_iter batches, which go on where those of the last test ended."""
        counts = self.solver.params.test_iter
        return [self._test(index, count) for index, count in enumerate(counts)]

    def _test(self, index: int, count: int) -> Mapping[str, float]:
        first = tests_before(self.solver.params, self.iteration) * count
        sums: dict[str, float] = {}
        for batch in range(first, first + count):
            seed = zlib.crc32(f"{self._draw('test')} {batch}".encode())
            for name, value in _named(self.child.ask("test", net=index, seed=seed, batch=batch)).items():
                sums[name] = sums.get(name, 0.0) + value
        return {name: total / count for name, total in sums.items()}

    def snapshot(self, weights: Path, state: Path) -> None:
        """Let Caffe write both files beside the targets, then write them with the layers of the net as it was given."""
        link = self.folder / "snapshot"
        link.unlink(missing_ok=True)
        link.symlink_to(weights.parent.absolute(), target_is_directory=True)
        self.child.ask("snapshot")
        raw = weights.parent / f"raw_iter_{self.iteration}.caffemodel"
        raw_state = raw.with_suffix(".solverstate")
        written = caffemodel.read(raw)
        self._check_whole(written)
        caffemodel.write(weights, pycaffe_nets.as_written(written.layers, self.net), self.net.name, force=True)
        write_state(state, caffemodel.read_solverstate(raw_state), str(weights))
        for path in (raw, raw_state):
            path.unlink()

    def _check_whole(self, written: caffemodel.CaffeModel) -> None:
        """Caffe does not notice where the disk is full: see that all blobs are there."""
        found = {layer.name: [blob.shape for blob in layer.blobs] for layer in written.layers if layer.blobs}
        if found != self.shapes:
            missing = ", ".join(repr(name) for name in self.shapes if found.get(name) != self.shapes[name])
            raise WeightsError(f"Caffe's file lacks the weights of {missing}")

    def restore(self, state: Path) -> None:
        """Give Caffe the weights, then the state."""
        found = caffemodel.read_solverstate(state)
        taken, _ = matched(weights_of(state), self.shapes, self.net.layers)
        missing = [name for name in self.shapes if name not in {layer.name for layer in taken}]
        if missing:
            names = ", ".join(map(repr, missing))
            raise WeightsError(f"{weights_of(state)}: no weights for {names}: is it a snapshot of this net?")
        with self._file_of(taken) as weights:
            copy = self.folder / "resumed.solverstate"
            write_state(copy, found, str(weights))
            self._iteration = self.child.ask("restore", state=str(copy))
            copy.unlink()
        self.policy.step = found.current_step

    def load_weights(self, path: Path) -> list[str]:
        """Give Caffe the layers that match by name and shape."""
        taken, lines = matched(path, self.shapes, self.net.layers)
        with self._file_of(in_inverse_std(taken, path, self.net, self.settings.bn_statistic)) as weights:
            self.child.ask("copy", weights=str(weights))
        return lines

    @contextmanager
    def _file_of(self, taken: list[NewLayer]) -> Iterator[Path]:
        """Yield a file of these layers, in the shapes that Caffe wants and of the one version it need not upgrade."""
        file = self.folder / "given.caffemodel"
        caffemodel.write(file, taken, force=True)
        yield file
        file.unlink()

    def close(self) -> None:
        """End Caffe's process."""
        if hasattr(self, "child"):
            self.child.close()
        self._work.cleanup()


def _named(outputs: Mapping[str, Any]) -> dict[str, float]:
    return {
        name if len(values) == 1 else f"{name}[{index}]": value
        for name, values in outputs.items()
        for index, value in enumerate(values)
    }


def create(solver: Solver, settings: Settings) -> PycaffeBackend:
    """Return the backend; RuntimeMissingError where Caffe is not installed."""
    from importlib.util import find_spec

    from prototxt_gen.common.errors import RuntimeMissingError

    if find_spec("caffe") is None:
        raise RuntimeMissingError("backend pycaffe needs Caffe: run 'prototxt-gen caffe install'")
    return PycaffeBackend(solver, settings)
