"""prototxt-gen: Caffe nets without Caffe. Generate, read, check, train and convert prototxts and caffemodels.

    from prototxt_gen import build, read, Builder
    net = build("attention-56", classes=100)
    net = read("train_val.prototxt").at("TRAIN")

Names are loaded when first used, so that importing the package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prototxt_gen.analysis import analyse as analyse
    from prototxt_gen.common.errors import PrototxtGenError as PrototxtGenError
    from prototxt_gen.ir import Layer as Layer
    from prototxt_gen.ir import Net as Net
    from prototxt_gen.ir import Value as Value
    from prototxt_gen.models import build as build
    from prototxt_gen.models import model as model
    from prototxt_gen.net.builder import Builder as Builder
    from prototxt_gen.net.prototxt_reader import parse_net as parse_net
    from prototxt_gen.net.prototxt_reader import read as read
    from prototxt_gen.net.render import net_text as net_text
    from prototxt_gen.net.solver import read_solver as read_solver

_HOMES = {
    "analyse": "analysis",
    "Builder": "net.builder",
    "PrototxtGenError": "common.errors",
    "Layer": "ir",
    "Net": "ir",
    "Value": "ir",
    "build": "models",
    "model": "models",
    "parse_net": "net.prototxt_reader",
    "read": "net.prototxt_reader",
    "net_text": "net.render",
    "read_solver": "net.solver",
}
__all__ = list(_HOMES)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'prototxt_gen' has no attribute {name!r}")
    return getattr(import_module(f"prototxt_gen.{_HOMES[name]}"), name)
