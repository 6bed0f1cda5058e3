"""A net as a model.py: classes nested as its slash-separated names are, torch.nn's own modules, no import of ours.

Layers whose names share a prefix become a class of their own where they follow one another; two of the same make are
instances of one class.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from keyword import iskeyword, kwlist

from torch import Tensor, nn

from converters.common.net_with_weights import Subject
from converters.pytorch_export.fixed_sizes import Fixed, all_pieces
from converters.pytorch_export.layer_source import Piece
from converters.pytorch_export.nested_classes import Scope, scopes
from converters.pytorch_export.source_snippets import CHECK, HOLDING, LOAD, STUBS
from converters.pytorch_export.trace_to_source import bare
from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Value
from prototxt_gen.runtime.module_tree import attribute_name
from prototxt_gen.runtime.torch_net import TorchNet

_RESERVED = {"self", "nn", "torch", "F", "holding", "within", "load", "Path", "checked"}


@dataclass
class Source:
    """`text` of model.py, the `state` that belongs to it, and sentences on what is fixed."""

    text: str
    state: dict[str, Tensor]
    remarks: list[str] = field(default_factory=list)


def source_of(subject: Subject, net: TorchNet, constants: str = "") -> Source:
    """Write a net as Python. `constants` is put after the imports. UnsupportedError lists what cannot be written."""
    apart = TorchNet(net.analysis, net.dump_weights(), shared=False) if _shares(net) else net
    pieces, fixed = all_pieces(subject.analysis, apart)
    state = _state(apart, pieces)
    writer = _ModelWriter(apart, pieces)
    writer.write(fixed, list(_ties(net, state)))
    return Source(writer.text(subject, constants), state, fixed.remarks)


def _shares(net: TorchNet) -> bool:
    names = [spec.name for step in net.lowered_layers for spec in step.layer.params.param if spec.name]
    return len(names) > len(set(names))


def _ties(net: TorchNet, names: Iterable[str]) -> Iterator[str]:
    """Yield the statements that let layers have one tensor where the net's do. Those that lie otherwise stay apart."""
    parameters = dict(net.named_parameters(remove_duplicate=False))
    owners: dict[nn.Parameter, str] = {}
    for name in names:
        owner = owners.setdefault(parameters[name], name) if name in parameters else name
        if owner != name:
            yield f"{_attribute(name)} = {_attribute(owner)}"


def _attribute(name: str) -> str:
    return "self" + "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in name.split("."))


def _state(net: TorchNet, pieces: Iterable[Piece]) -> dict[str, Tensor]:
    """Return the tensors that the classes hold: those of stock modules, and what ours were seen to take."""
    found: dict[str, Tensor] = {}
    for one in pieces:
        module = net.get_submodule(one.path)
        if one.traced is None and one.bundle is None:
            own = dict(module.state_dict(keep_vars=False))
            own = {name: tensor for name, tensor in own.items() if name not in ("factor",)}
        else:
            own = {name: tensor.detach() for name, tensor in one.tensors.items()}
        found |= {f"{one.path}.{name}": tensor for name, tensor in own.items()}
    return {name: tensor.clone().contiguous() for name, tensor in found.items()}


class _ModelWriter:
    def __init__(self, net: TorchNet, pieces: list[Piece]) -> None:
        self.net, self.pieces = net, pieces
        self.root = scopes(pieces)
        self.classes: dict[str, str] = {}
        """The body of each class, by name, inner ones first."""
        self.outputs = list(net.outputs)
        self.ties: list[str] = []

    def write(self, fixed: Fixed, ties: list[str]) -> None:
        self.ties = ties
        body = self._class_body(self.root, list(self.net.inputs), self.outputs, self._check(fixed))
        self.classes["Net"] = body

    def _check(self, fixed: Fixed) -> list[str]:
        """Return the lines that refuse inputs of sizes the source was not written for."""
        lines = []
        for value in self.net.inputs:
            shape = self.net.analysis.shapes[value]
            kept = [str(dim) if self._is_fixed(axis, len(shape), fixed) else "None" for axis, dim in enumerate(shape)]
            if any(part != "None" and axis != 1 for axis, part in enumerate(kept)):
                comma = "," if len(kept) == 1 else ""
                lines.append(f"checked({value.blob!r}, {_variable(value.blob)}, ({', '.join(kept)}{comma}))")
        return lines

    def _is_fixed(self, axis: int, axes: int, fixed: Fixed) -> bool:
        return fixed.batch if axis == 0 else fixed.size or axes != 4 or axis == 1

    def _class_body(self, scope: Scope, inputs: list[Value], outputs: list[Value], first: Sequence[str] = ()) -> str:
        names = _Names(inputs, scope.path)
        init: list[str] = []
        forward = [*first]
        made: set[str] = set()
        for item in scope.items:
            if isinstance(item, Scope):
                self._write_scope(item, scope, names, init, forward, outputs, made)
            else:
                self._write_piece(item, scope, names, init, forward, made)
        if scope is self.root:
            init += self.ties
        forward.append(f"return {', '.join(names.of(value) for value in outputs)}")
        return _laid_out(init, names.arguments, forward)

    def _write_piece(
        self, one: Piece, scope: Scope, names: _Names, init: list[str], forward: list[str], made: set[str]
    ) -> None:
        home = self._home(one.path.split("."), scope, init, made, is_module=one.made is not None)
        if one.made is not None:
            init.append(f"{home} = {one.made}")
        bottoms = [names.of(value) for value in one.layer.bottoms]
        lines, tops = one.statements(home, bottoms, names.taken)
        forward += lines
        for value, expression in zip(one.layer.tops, tops, strict=True):
            forward.append(f"{names.new(value)} = {bare(expression)}")

    def _write_scope(
        self,
        inner: Scope,
        scope: Scope,
        names: _Names,
        init: list[str],
        forward: list[str],
        outputs: list[Value],
        made: set[str],
    ) -> None:
        taken, given = self._ends(inner, outputs)
        body = self._class_body(inner, taken, given)
        home = self._home(list(inner.path), scope, init, made, is_module=True)
        init.append(f"{home} = {self._class_name(inner, body)}()")
        arguments = ", ".join(names.of(value) for value in taken)
        forward.append(f"{', '.join(names.new(value) for value in given)} = {home}({arguments})")

    def _ends(self, inner: Scope, outputs: list[Value]) -> tuple[list[Value], list[Value]]:
        """Return what a scope takes from outside, and what of its own is taken outside."""
        inside = inner.pieces()
        own = [value for one in inside for value in one.layer.tops]
        taken = dict.fromkeys(v for one in inside for v in one.layer.bottoms if v not in own)
        ids = {id(one) for one in inside}
        elsewhere = {v for one in self.pieces if id(one) not in ids for v in one.layer.bottoms} | set(self.outputs)
        return list(taken), [value for value in own if value in elsewhere]

    def _home(self, parts: list[str], scope: Scope, init: list[str], made: set[str], is_module: bool) -> str:
        """Return `self.a.b` for a path below the scope; the modules in between are made where they are not yet."""
        below = parts[len(scope.path) :]
        for length in range(1, len(below)):
            between = "self." + ".".join(below[:length])
            if is_module and between not in made:
                made.add(between)
                init.append(f"{between} = nn.Module()")
        return "self." + ".".join(below)

    def _class_name(self, inner: Scope, body: str) -> str:
        for name, text in self.classes.items():
            if text == body:
                return name
        stem = "".join(part[:1].upper() + part[1:] for part in re.split(r"[^0-9A-Za-z]+", inner.path[-1]) if part)
        stem = re.sub(r"\d+$", "", stem) or "Block"
        stem = f"Block{stem}" if stem[0].isdigit() or stem == "Net" else stem
        bundled = {name for one in self.pieces if one.bundle for name in one.bundle.definitions}
        taken = {*self.classes, *bundled, *_RESERVED, *kwlist, "Net"}
        name = next(n for n in (stem, *(f"{stem}{i}" for i in range(2, len(taken) + 3))) if n not in taken)
        self.classes[name] = body
        return name

    def text(self, subject: Subject, constants: str) -> str:
        """Return the whole file."""
        bundles = [one.bundle for one in self.pieces if one.bundle is not None]
        definitions: dict[str, str] = {}
        for bundle in bundles:
            for name, text in bundle.definitions.items():
                if definitions.setdefault(name, text) != text:
                    raise UnsupportedError(f"two layers need two things of the name {name!r} in one model.py")
        imports = {line for bundle in bundles for line in bundle.imports}
        body = "\n".join(f"class {name}(nn.Module):\n{text}\n" for name, text in self.classes.items())
        parts = [
            _head_text(subject, imports, "F." in body, "holding(" in body, constants),
            CHECK if "checked(" in body else "",
            HOLDING if "holding(" in body else "",
            STUBS if any(bundle.stubs for bundle in bundles) else "",
            *definitions.values(),
            body,
            LOAD,
        ]
        return "\n\n".join(part.strip("\n") + "\n" for part in parts if part)


class _Names:
    """The variables of one forward: blobs' names from the scope on, `out` for the blob that is called as the scope.

    Arguments are x, y …, but for those of the whole net. So blocks of one make read alike, and are one class.
    """

    def __init__(self, inputs: Sequence[Value], scope: tuple[str, ...]) -> None:
        self.taken: set[str] = set(_RESERVED)
        self.by_blob: dict[str, str] = {}
        self.scope, is_root = scope, not scope
        letters = "xyzuvw" if len(inputs) <= 6 else ""
        self.arguments = []
        for index, value in enumerate(inputs):
            hint = _variable(value.blob) if is_root else letters[index] if letters else f"x{index}"
            self.arguments.append(self._take(value.blob, hint))

    def _take(self, blob: str, hint: str) -> str:
        name = next(n for n in (hint, *(f"{hint}_{i}" for i in range(2, len(self.taken) + 3))) if n not in self.taken)
        self.taken.add(name)
        self.by_blob[blob] = name
        return name

    def of(self, value: Value) -> str:
        return self.by_blob[value.blob]

    def new(self, value: Value) -> str:
        """Return the variable for a value that is now made; one written in place keeps its blob's."""
        return self.by_blob.get(value.blob) or self._take(value.blob, self._hint(value.blob))

    def _hint(self, blob: str) -> str:
        parts = tuple(attribute_name(part) for part in blob.split("/"))
        if parts[: len(self.scope)] != self.scope:
            return _variable(parts[-1].removeprefix(f"{self.scope[-1]}_") or "out")
        return _variable("_".join(parts[len(self.scope) :]) or "out")


def _variable(blob: str) -> str:
    made = re.sub(r"\W", "_", blob, flags=re.ASCII) or "_"
    made = f"_{made}" if made[0].isdigit() else made
    return f"{made}_" if iskeyword(made) or made in _RESERVED else made


def _laid_out(init: Sequence[str], arguments: Sequence[str], forward: Sequence[str]) -> str:
    lines = []
    if init:
        lines += ["    def __init__(self):", "        super().__init__()", *(f"        {line}" for line in init), ""]
    head = ", ".join(["self", *arguments])
    return "\n".join([*lines, f"    def forward({head}):", *(f"        {line}" for line in forward)]) + "\n"


def _head_text(subject: Subject, imports: set[str], functional: bool, torch_needed: bool, constants: str) -> str:
    lines = {"import torch", "from pathlib import Path", "from torch import nn", *imports}
    if functional:
        lines.add("import torch.nn.functional as F")
    plain = sorted(line for line in lines if line.startswith("import "))
    name = subject.net.name or "A net"
    said = f'"""{_quoted(name)}, converted from Caffe by prototxt-gen. It needs PyTorch and safetensors only."""'
    listed = "\n".join([*plain, *sorted(lines - set(plain))])
    return f"{said}\n\n{listed}\n" + (f"\n{constants}" if constants else "")


def _quoted(name: str) -> str:
    return re.sub(r'[\\"\n\r]', " ", name).encode("ascii", "replace").decode()
