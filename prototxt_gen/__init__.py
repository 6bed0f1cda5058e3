"""prototxt-gen: generate, read, check, draw, train and convert Caffe nets without Caffe.

    from prototxt_gen import build, read_net, check_net, to_onnx
    net = build("attention-56", classes=100)
    problems = check_net(read_net("train_val.prototxt"))
    to_onnx("deploy.prototxt", "net.caffemodel", "net.onnx")

`dir(prototxt_gen)` lists all names. Each is imported at its first use, so that importing the package is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from converters import to_onnx as to_onnx
    from converters import to_torch as to_torch
    from converters import verify as verify
    from prototxt_gen.analysis import analyse as analyse
    from prototxt_gen.checks import check_net as check_net
    from prototxt_gen.checks import check_solver as check_solver
    from prototxt_gen.common.errors import PrototxtGenError as PrototxtGenError
    from prototxt_gen.draw.draw_net import draw_net as draw_net
    from prototxt_gen.ir import Layer as Layer
    from prototxt_gen.ir import Net as Net
    from prototxt_gen.ir import Value as Value
    from prototxt_gen.models import build as build
    from prototxt_gen.models import model as model
    from prototxt_gen.net.builder import Builder as Builder
    from prototxt_gen.net.prototxt_reader import parse_net as parse_net
    from prototxt_gen.net.prototxt_reader import read as read
    from prototxt_gen.net.prototxt_reader import read_net as read_net
    from prototxt_gen.net.render import net_text as net_text
    from prototxt_gen.net.solver import read_solver as read_solver
    from prototxt_gen.train.train_net import train_net as train_net
    from prototxt_gen.weights import Weights as Weights

_MODULES = {
    "Builder": "prototxt_gen.net.builder",
    "Layer": "prototxt_gen.ir",
    "Net": "prototxt_gen.ir",
    "PrototxtGenError": "prototxt_gen.common.errors",
    "Value": "prototxt_gen.ir",
    "Weights": "prototxt_gen.weights",
    "analyse": "prototxt_gen.analysis",
    "build": "prototxt_gen.models",
    "check_net": "prototxt_gen.checks",
    "check_solver": "prototxt_gen.checks",
    "draw_net": "prototxt_gen.draw.draw_net",
    "model": "prototxt_gen.models",
    "net_text": "prototxt_gen.net.render",
    "parse_net": "prototxt_gen.net.prototxt_reader",
    "read": "prototxt_gen.net.prototxt_reader",
    "read_net": "prototxt_gen.net.prototxt_reader",
    "read_solver": "prototxt_gen.net.solver",
    "to_onnx": "converters",
    "to_torch": "converters",
    "train_net": "prototxt_gen.train.train_net",
    "verify": "converters",
}
"""The module that defines each public name. `read` is an older name of `read_net`."""
__all__ = list(_MODULES)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'prototxt_gen' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
