"""Reading the NET argument: which file it is, in which phase, with which input shapes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from prototxt_gen.cli.param_types import parse_dims
from prototxt_gen.common.errors import PrototxtError, PrototxtGenError
from prototxt_gen.ir import Net, Shape

if TYPE_CHECKING:
    from prototxt_gen.net.solver import Solver
    from prototxt_gen.net.upgrade import Tree


def shapes_from_options(net: Net, input_size: str | None, shapes: tuple[str, ...]) -> Mapping[str, Shape]:
    """Return the shapes that --input-size and --shape give, by blob."""
    from prototxt_gen.analysis import resized_input_shapes

    found: dict[str, Shape] = (
        dict(resized_input_shapes(net, parse_dims(input_size, "--input-size"))) if input_size else {}
    )
    for text in shapes:
        blob, equals, dims = text.partition("=")
        if not equals:
            raise PrototxtGenError(f"--shape {text!r}: write BLOB=1x3x224x224")
        if blob not in {value.blob for value in net.values()} | _undefined_blobs(net):
            raise PrototxtGenError(f"--shape {text!r}: the net has no blob {blob!r}")
        found[blob] = parse_dims(dims, "--shape")
    return found


def _undefined_blobs(net: Net) -> set[str]:
    """Return the bottoms that no layer of the net makes; a deploy net may have them as inputs."""
    return {value.blob for layer in net.layers for value in layer.bottoms if value.version < 0}


def phase_or_default(net: Net, phase: str | None) -> str:
    """Return the phase of --phase; by default TEST, or TRAIN for a file that has no other."""
    from prototxt_gen.net.phase_rules import intended_phases

    return phase or intended_phases(net)[-1]


def net_in_phase(net: Net, phase: str | None, stages: tuple[str, ...], level: int) -> Net:
    """Return the net of one phase; the file's own stages count in addition to --stage, its level does not.

    Source: src/caffe/net.cpp Net::Net(param_file, phase, level, stages).
    """
    return net.at(phase_or_default(net, phase), (*net.params.state.stage, *stages), level)


def read_net(path: Path, phase: str | None, stages: tuple[str, ...], level: int) -> Net:
    """Return the net of a prototxt in one phase; a solver is an error."""
    return net_in_phase(read_all_phases(path), phase, stages, level)


def read_all_phases(path: Path) -> Net:
    """Return the net of a prototxt with the layers of all phases; a solver is an error."""
    _, read = read_net_or_solver(path)
    if not isinstance(read, Net):
        raise PrototxtError(f"{path}: a solver, not a net; give the net's own file")
    return read


def read_net_or_solver(path: Path) -> tuple[Tree, Net | Solver]:
    """Return a prototxt's parsed fields, and the solver or the net of all phases that they describe.

    PrototxtError, naming file and line, where it is neither.
    """
    from prototxt_gen.net.prototxt_reader import net_from_tree, read_prototxt_bytes
    from prototxt_gen.net.solver import is_solver, solver_from_tree
    from prototxt_gen.text import parse

    text, source = read_prototxt_bytes(path), str(path)
    try:
        tree = parse(text)
        read = solver_from_tree(tree, source) if is_solver(tree) else net_from_tree(tree, source)
    except PrototxtError as error:
        raise PrototxtError(f"{source}: {error}", error.line) from None
    if isinstance(read, Net) and not read.layers and not read.inputs:
        raise PrototxtError(f"{source}: neither a net nor a solver; {_content(tree)}")
    return tree, read


def _content(tree: Tree) -> str:
    found = ", ".join(dict.fromkeys(field.name for field in tree[:20]))
    return f"it holds {found}" if found else "it is empty"
