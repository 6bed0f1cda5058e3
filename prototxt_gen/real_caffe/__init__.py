"""A real Caffe for this Python: built from Caffe's sources, cached as a wheel, installed, tested.

from prototxt_gen import real_caffe

real_caffe.install()       # minutes the first time, seconds from the cache
print(real_caffe.status())
caffe = real_caffe.load()
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

from prototxt_gen.common.errors import RuntimeMissingError
from prototxt_gen.common.progress import ShareProgress as Progress
from prototxt_gen.real_caffe.status import Status, status

__all__ = ["Progress", "Status", "install", "load", "status"]


def install(
    python: str | Path = sys.executable, apt: bool = False, force: bool = False, progress: Progress | None = None
) -> Path:
    """Build Caffe for `python`, install and test it there, and return the path of its wheel in the cache.

    `apt` installs missing system packages; `force` builds and installs again although a wheel is cached.
    `progress(what, share)` is called with a share from 0 to 1; default: a progress bar on a terminal. Raises
    RuntimeMissingError, naming missing system packages and the command that installs them, and PrototxtGenError with
    the compiler's first errors and the path of the log.
    """
    from prototxt_gen.real_caffe import installer

    return installer.install(Path(python), apt=apt, force=force, progress=progress)


def load() -> ModuleType:
    """Return the module `caffe`, logging only errors. Raises RuntimeMissingError if it is missing or broken."""
    os.environ.setdefault("GLOG_minloglevel", "2")  # read by Caffe when it is first imported
    try:
        module = import_module("caffe")
    except ModuleNotFoundError as error:
        raise RuntimeMissingError(f"Caffe is not installed ({error}): run 'prototxt-gen caffe install'") from None
    except ImportError as error:
        message = f"Caffe is installed but does not load ({error}): run 'prototxt-gen caffe install --rebuild'"
        raise RuntimeMissingError(message) from None
    if not hasattr(module, "layer_type_list"):  # a folder of that name in the working directory
        raise RuntimeMissingError(f"{module.__path__} is not Caffe: run 'prototxt-gen caffe install' elsewhere")
    return module
