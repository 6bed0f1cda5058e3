"""Training with real Caffe in a child process, such that an interrupted run resumes to exactly the same weights.

What happens at iteration i depends only on the solver, the weights, the solver histories, the seed and i:

* Data, ImageData and HDF5Data are replaced by Python layers that return any batch by its index (`pycaffe_nets`,
  `data_layer_batches`).
* Before every step Caffe's random generator is seeded from (seed, i), for Dropout, DummyData and other random layers.
* Caffe computes one iteration at a time (`solver.step(1)`). The training loop does testing, display and snapshots.

A snapshot therefore consists of Caffe's own two files, and Caffe itself can resume from them. With one thread
(OPENBLAS_NUM_THREADS=1) the weights of a resumed run equal those of an uninterrupted run bit for bit.
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
from prototxt_gen.real_caffe.child_process import ChildProcess
from prototxt_gen.train import missing_backward, pycaffe_nets
from prototxt_gen.train.backend import Settings, Step
from prototxt_gen.train.lr_policies import LearningRatePolicy
from prototxt_gen.train.schedule import count_tests_before
from prototxt_gen.train.snapshots import weights_of_state, write_state
from prototxt_gen.train.weight_transfer import match_layers, with_inverse_std


class PycaffeBackend:
    """The pycaffe backend (see the module). Raises NetError if Caffe refuses the nets or cannot train them."""

    def __init__(self, solver: Solver, settings: Settings) -> None:
        self.solver, self.settings = solver, settings
        self.seed = settings.run_seed(solver)
        self.net, self.test_nets = solver.read_train_net(), solver.read_test_nets()
        self.warnings = _cpu_warnings(solver, settings)
        self.policy = LearningRatePolicy(solver.params)
        self._iteration = 0
        self._temporary_folder = tempfile.TemporaryDirectory(prefix="prototxt-gen-caffe-", ignore_cleanup_errors=True)
        self.folder = Path(self._temporary_folder.name)
        try:
            self._write_nets()
            self.child = ChildProcess("prototxt_gen.train.pycaffe_process", self.folder / "caffe.log")
            self.shapes = self._start()
            self._refuse_missing_backward()
        except BaseException:
            self.close()
            raise

    def _write_nets(self) -> None:
        folder = Path(self.solver.source).parent
        replacement = pycaffe_nets.DataLayerReplacement(self.seed, folder, self.settings.workers)
        train = pycaffe_nets.net_for_caffe(self.net, "TRAIN", replacement)
        self._write("train.prototxt", net_text(train))
        for index, net in enumerate(self.test_nets):
            self._write(f"test{index}.prototxt", net_text(pycaffe_nets.net_for_caffe(net, "TEST", replacement)))
        prefix = self.folder / "snapshot" / "raw"
        text = pycaffe_nets.solver_for_caffe(self.solver, self.folder / "train.prototxt", prefix, self.seed)
        self._write("solver.prototxt", text)

    def _write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text, encoding="utf-8", errors="surrogateescape")

    def _start(self) -> dict[str, list[tuple[int, ...]]]:
        tests = [str(self.folder / f"test{index}.prototxt") for index in range(len(self.test_nets))]
        solver = str(self.folder / "solver.prototxt")
        shapes = self.child.request("start", solver=solver, tests=tests, gpu=self.settings.gpu)
        return {name: [tuple(shape) for shape in blobs] for name, blobs in shapes.items()}

    def _refuse_missing_backward(self) -> None:
        """Raise UnsupportedError if a learned layer is below a layer whose backward pass, tried here, does nothing."""
        for layer in missing_backward.layers_to_check(self.net, self.shapes):
            shapes = self.child.request("blob_shapes", blobs=[bottom.blob for bottom in layer.bottoms])
            self._write("one_layer.prototxt", missing_backward.one_layer_net(layer, shapes))
            if not self.child.request("has_backward", net=str(self.folder / "one_layer.prototxt")):
                raise missing_backward.missing_backward_error(layer)

    @property
    def iteration(self) -> int:
        """The number of updates so far."""
        return self._iteration

    def inexact_resume_warnings(self) -> list[str]:
        """Return one line for each layer that keeps a resumed run from being exact."""
        return list(pycaffe_nets.inexact_resume_warnings(self.net))

    def step(self) -> Step:
        """Run one iteration of Caffe's solver."""
        iteration = self.iteration
        batch = iteration * self.solver.params.iter_size
        answer = self.child.request("step", seed=self._derived_seed("step"), batch=batch)
        self._iteration += 1
        loss = answer["loss"] / self.solver.params.iter_size
        return Step(iteration, loss, self.policy.rate(iteration), _values_by_name(answer["outputs"]))

    def _derived_seed(self, purpose: str) -> int:
        """Return a seed that depends on the run's seed, the iteration and the purpose ("step" or "test")."""
        return zlib.crc32(f"{self.seed} {purpose} {self.iteration}".encode())

    def test(self) -> list[Mapping[str, float]]:
        """Run every test net over test_iter batches, which continue where those of the previous test ended."""
        counts = self.solver.params.test_iter
        return [self._test(index, count) for index, count in enumerate(counts)]

    def _test(self, index: int, count: int) -> Mapping[str, float]:
        first = count_tests_before(self.solver.params, self.iteration) * count
        sums: dict[str, float] = {}
        for batch in range(first, first + count):
            seed = zlib.crc32(f"{self._derived_seed('test')} {batch}".encode())
            outputs = self.child.request("test", net=index, seed=seed, batch=batch)
            for name, value in _values_by_name(outputs).items():
                sums[name] = sums.get(name, 0.0) + value
        return {name: total / count for name, total in sums.items()}

    def snapshot(self, weights: Path, state: Path) -> None:
        """Let Caffe write both files beside the targets, then rewrite them with the layers of the original net."""
        link = self.folder / "snapshot"
        link.unlink(missing_ok=True)
        link.symlink_to(weights.parent.absolute(), target_is_directory=True)
        self.child.request("snapshot")
        raw = weights.parent / f"raw_iter_{self.iteration}.caffemodel"
        raw_state = raw.with_suffix(".solverstate")
        written = caffemodel.read(raw)
        self._check_complete(written)
        layers = pycaffe_nets.with_original_layers(written.layers, self.net)
        caffemodel.write(weights, layers, self.net.name, force=True)
        write_state(state, caffemodel.read_solverstate(raw_state), str(weights))
        for path in (raw, raw_state):
            path.unlink()

    def _check_complete(self, written: caffemodel.CaffeModel) -> None:
        """Raise WeightsError if blobs are missing: Caffe does not notice that a disk is full."""
        shapes = {layer.name: [blob.shape for blob in layer.blobs] for layer in written.layers if layer.blobs}
        if shapes != self.shapes:
            missing = ", ".join(repr(name) for name in self.shapes if shapes.get(name) != self.shapes[name])
            raise WeightsError(f"Caffe's file lacks the weights of {missing}")

    def restore(self, state_file: Path) -> None:
        """Load the weights into Caffe, then the solver state. Raises WeightsError if weights of a layer are missing."""
        state = caffemodel.read_solverstate(state_file)
        layers, _ = match_layers(weights_of_state(state_file), self.shapes, self.net.layers)
        missing = [name for name in self.shapes if name not in {layer.name for layer in layers}]
        if missing:
            names = ", ".join(map(repr, missing))
            raise WeightsError(f"{weights_of_state(state_file)}: no weights for {names}: is it a snapshot of this net?")
        with self._temporary_weights(layers) as weights:
            copy = self.folder / "resumed.solverstate"
            write_state(copy, state, str(weights))
            self._iteration = self.child.request("restore", state=str(copy))
            copy.unlink()
        self.policy.current_step = state.current_step

    def load_weights(self, path: Path) -> list[str]:
        """Load the layers that match by name and shape; return one line per layer that says whether it matched."""
        layers, lines = match_layers(path, self.shapes, self.net.layers)
        with self._temporary_weights(with_inverse_std(layers, path, self.net, self.settings.bn_statistic)) as weights:
            self.child.request("copy_weights", weights=str(weights))
        return lines

    @contextmanager
    def _temporary_weights(self, layers: list[NewLayer]) -> Iterator[Path]:
        """Yield a temporary .caffemodel of these layers, in a version that Caffe need not upgrade."""
        file = self.folder / "initial.caffemodel"
        caffemodel.write(file, layers, force=True)
        yield file
        file.unlink()

    def close(self) -> None:
        """End Caffe's process."""
        if hasattr(self, "child"):
            self.child.close()
        self._temporary_folder.cleanup()


def _cpu_warnings(solver: Solver, settings: Settings) -> list[str]:
    """Return a warning if the solver has `solver_mode: GPU`, which this backend does only with --gpu."""
    if settings.gpu is None and solver.params.has("solver_mode") and solver.params.solver_mode == "GPU":
        return ["solver_mode: GPU, but backend pycaffe trains on the CPU unless --gpu N is given"]
    return []


def _values_by_name(outputs: Mapping[str, Any]) -> dict[str, float]:
    return {
        name if len(values) == 1 else f"{name}[{index}]": value
        for name, values in outputs.items()
        for index, value in enumerate(values)
    }


def create(solver: Solver, settings: Settings) -> PycaffeBackend:
    """Return the backend. Raises RuntimeMissingError if Caffe is not installed."""
    from importlib.util import find_spec

    from prototxt_gen.common.errors import RuntimeMissingError

    if find_spec("caffe") is None:
        raise RuntimeMissingError("backend pycaffe needs Caffe: run 'prototxt-gen caffe install'")
    return PycaffeBackend(solver, settings)
