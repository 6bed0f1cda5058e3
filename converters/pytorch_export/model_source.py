"""The text of model.py for a net: nested classes of torch.nn modules, without an import of our packages.

Layers whose names begin with the same part become a class if they follow each other. Equal classes are written once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from keyword import iskeyword, kwlist

from torch import Tensor, nn

from converters.common.net_with_weights import NetWithWeights
from converters.pytorch_export.fixed_sizes import FixedSizes, write_all_layers
from converters.pytorch_export.layer_source import LayerSource
from converters.pytorch_export.nested_classes import Scope, group_by_scope
from converters.pytorch_export.self_contained_source import SelfContainedSource
from converters.pytorch_export.source_snippets import ADD_TENSORS, CHECK_SHAPE, LAYER_PARAMETERS, LOAD_WEIGHTS
from converters.pytorch_export.trace_to_source import without_outer_parentheses
from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Value
from prototxt_gen.runtime.module_tree import attribute_name
from prototxt_gen.runtime.torch_net import TorchNet

_RESERVED_NAMES = {"self", "nn", "torch", "F", "holding", "within", "load", "Path", "checked"}


@dataclass
class ModelSource:
    """The `text` of model.py, the state_dict that belongs to it, and remarks on sizes that are fixed."""

    text: str
    state: dict[str, Tensor]
    remarks: list[str] = field(default_factory=list)


def model_source(model: NetWithWeights, net: TorchNet, constants: str = "") -> ModelSource:
    """Write a net as Python.

    `net`: the same net as a PyTorch module. `constants`: text that follows the imports. Raises UnsupportedError, which
    lists all layers that cannot be written.
    """
    unshared = TorchNet(net.analysis, net.dump_weights(), shared=False) if _has_shared_blobs(net) else net
    layers, fixed = write_all_layers(model.analysis, unshared)
    state = _state_dict(unshared, layers)
    writer = _ModelWriter(unshared, layers)
    writer.write(fixed, list(_sharing_statements(net, state)))
    return ModelSource(writer.text(model, constants), state, fixed.remarks)


def _has_shared_blobs(net: TorchNet) -> bool:
    names = [spec.name for step in net.lowered_layers for spec in step.layer.params.param if spec.name]
    return len(names) > len(set(names))


def _sharing_statements(net: TorchNet, names: Iterable[str]) -> Iterator[str]:
    """Yield the assignments that make layers share a parameter as in `net`.

    Parameters that a layer stores in another layout (transposed) are not shared.
    """
    parameters = dict(net.named_parameters(remove_duplicate=False))
    owners: dict[nn.Parameter, str] = {}
    for name in names:
        owner = owners.setdefault(parameters[name], name) if name in parameters else name
        if owner != name:
            yield f"{_attribute_expression(name)} = {_attribute_expression(owner)}"


def _attribute_expression(name: str) -> str:
    return "self" + "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in name.split("."))


def _state_dict(net: TorchNet, layers: Iterable[LayerSource]) -> dict[str, Tensor]:
    """Return the tensors that the written classes have, by name."""
    state: dict[str, Tensor] = {}
    for layer in layers:
        module = net.get_submodule(layer.path)
        if layer.trace is None and layer.module_source is None:
            tensors = dict(module.state_dict(keep_vars=False))
            tensors.pop("factor", None)
        else:
            tensors = {name: tensor.detach() for name, tensor in layer.tensors.items()}
        state |= {f"{layer.path}.{name}": tensor for name, tensor in tensors.items()}
    return {name: tensor.clone().contiguous() for name, tensor in state.items()}


@dataclass
class _ClassLines:
    """The lines of one class while it is written. `modules`: expressions of its modules made so far."""

    init: list[str] = field(default_factory=list)
    forward: list[str] = field(default_factory=list)
    modules: set[str] = field(default_factory=set)


class _ModelWriter:
    def __init__(self, net: TorchNet, layers: list[LayerSource]) -> None:
        self.net, self.layers = net, layers
        self.root = group_by_scope(layers)
        self.classes: dict[str, str] = {}
        """The body of each class by name; a class comes after those that it uses."""
        self.outputs = list(net.outputs)
        self.sharing_statements: list[str] = []

    def write(self, fixed: FixedSizes, sharing_statements: list[str]) -> None:
        """Write all classes into `classes`."""
        self.sharing_statements = sharing_statements
        body = self._class_body(self.root, list(self.net.inputs), self.outputs, self._shape_checks(fixed))
        self.classes["Net"] = body

    def _shape_checks(self, fixed: FixedSizes) -> list[str]:
        """Return the lines that refuse inputs of shapes that the source does not support."""
        lines = []
        for value in self.net.inputs:
            shape = self.net.analysis.shapes[value]
            sizes = [str(dim) if self._is_fixed(axis, len(shape), fixed) else "None" for axis, dim in enumerate(shape)]
            if any(size != "None" and axis != 1 for axis, size in enumerate(sizes)):
                comma = "," if len(sizes) == 1 else ""
                lines.append(f"checked({value.blob!r}, {_variable_name(value.blob)}, ({', '.join(sizes)}{comma}))")
        return lines

    def _is_fixed(self, axis: int, axes: int, fixed: FixedSizes) -> bool:
        return fixed.is_batch_fixed if axis == 0 else fixed.is_image_size_fixed or axes != 4 or axis == 1

    def _class_body(
        self, scope: Scope, inputs: list[Value], outputs: list[Value], first_lines: Sequence[str] = ()
    ) -> str:
        """Return __init__ and forward of the class for a scope; write the classes of its inner scopes."""
        variables = _Variables(inputs, scope.path)
        lines = _ClassLines(forward=[*first_lines])
        for item in scope.items:
            if isinstance(item, Scope):
                self._write_inner_scope(item, scope, variables, lines)
            else:
                self._write_layer(item, scope, variables, lines)
        if scope is self.root:
            lines.init += self.sharing_statements
        if outputs or not lines.forward:
            lines.forward.append(f"return {', '.join(variables.of(value) for value in outputs)}".rstrip())
        return _class_text(lines.init, variables.arguments, lines.forward)

    def _write_layer(self, layer: LayerSource, scope: Scope, variables: _Variables, lines: _ClassLines) -> None:
        has_module = layer.constructor is not None
        module_name = self._module_name(layer.path.split("."), scope, lines, has_module)
        if has_module:
            lines.init.append(f"{module_name} = {layer.constructor}")
        bottoms = [variables.of(value) for value in layer.layer.bottoms]
        statements, tops = layer.statements(module_name, bottoms, variables.used)
        lines.forward += statements
        for value, expression in zip(layer.layer.tops, tops, strict=True):
            lines.forward.append(f"{variables.new(value)} = {without_outer_parentheses(expression)}")

    def _write_inner_scope(self, inner: Scope, scope: Scope, variables: _Variables, lines: _ClassLines) -> None:
        inputs, outputs = self._inputs_and_outputs(inner)
        body = self._class_body(inner, inputs, outputs)
        module_name = self._module_name(list(inner.path), scope, lines, has_module=True)
        lines.init.append(f"{module_name} = {self._class_name(inner, body)}()")
        arguments = ", ".join(variables.of(value) for value in inputs)
        results = ", ".join(variables.new(value) for value in outputs)
        lines.forward.append(f"{results} = {module_name}({arguments})" if outputs else f"{module_name}({arguments})")

    def _inputs_and_outputs(self, scope: Scope) -> tuple[list[Value], list[Value]]:
        """Return the values that a scope uses from outside, and its own values that are used outside."""
        inside = scope.layers()
        own = [value for layer in inside for value in layer.layer.tops]
        inputs = dict.fromkeys(v for layer in inside for v in layer.layer.bottoms if v not in own)
        ids = {id(layer) for layer in inside}
        outside = {v for layer in self.layers if id(layer) not in ids for v in layer.layer.bottoms} | set(self.outputs)
        return list(inputs), [value for value in own if value in outside]

    def _module_name(self, parts: list[str], scope: Scope, lines: _ClassLines, has_module: bool) -> str:
        """Return `self.a.b` for a path below the scope; the container `self.a` is made if needed."""
        below = parts[len(scope.path) :]
        for length in range(1, len(below)):
            container = "self." + ".".join(below[:length])
            if has_module and container not in lines.modules:
                lines.modules.add(container)
                lines.init.append(f"{container} = nn.Module()")
        return "self." + ".".join(below)

    def _class_name(self, scope: Scope, body: str) -> str:
        """Return the class with this body, or add one named after the last part of the scope's path."""
        for name, text in self.classes.items():
            if text == body:
                return name
        stem = "".join(part[:1].upper() + part[1:] for part in re.split(r"[^0-9A-Za-z]+", scope.path[-1]) if part)
        stem = re.sub(r"\d+$", "", stem) or "Block"
        stem = f"Block{stem}" if stem[0].isdigit() or stem == "Net" else stem
        defined = {name for source in self._module_sources() for name in source.definitions}
        used = {*self.classes, *defined, *_RESERVED_NAMES, *kwlist, "Net"}
        name = next(n for n in (stem, *(f"{stem}{i}" for i in range(2, len(used) + 3))) if n not in used)
        self.classes[name] = body
        return name

    def _module_sources(self) -> list[SelfContainedSource]:
        return [layer.module_source for layer in self.layers if layer.module_source is not None]

    def _definitions(self) -> dict[str, str]:
        """Return the definitions of all self-contained sources. Raises UnsupportedError if two of one name differ."""
        definitions: dict[str, str] = {}
        for source in self._module_sources():
            for name, text in source.definitions.items():
                if definitions.setdefault(name, text) != text:
                    raise UnsupportedError(f"two layers need different definitions of {name!r} in one model.py")
        return definitions

    def text(self, model: NetWithWeights, constants: str) -> str:
        """Return the text of model.py."""
        sources = self._module_sources()
        definitions = self._definitions()
        imports = {line for source in sources for line in source.imports}
        body = "\n".join(f"class {name}(nn.Module):\n{text}\n" for name, text in self.classes.items())
        parts = [
            _head_text(model, imports, "F." in body, constants),
            CHECK_SHAPE if "checked(" in body else "",
            ADD_TENSORS if "holding(" in body else "",
            LAYER_PARAMETERS if any(source.needs_layer_parameters for source in sources) else "",
            *definitions.values(),
            body,
            LOAD_WEIGHTS,
        ]
        return "\n\n".join(part.strip("\n") + "\n" for part in parts if part)


class _Variables:
    """The variable names in one forward method.

    Arguments are x, y, z … so that equal blocks become equal classes; those of the whole net have the names of their
    blobs. Other variables have the part of the blob's name below the scope; a blob named as the scope is `out`.
    """

    def __init__(self, inputs: Sequence[Value], scope: tuple[str, ...]) -> None:
        self.used: set[str] = set(_RESERVED_NAMES)
        self.by_blob: dict[str, str] = {}
        self.scope, is_root = scope, not scope
        letters = "xyzuvw" if len(inputs) <= 6 else ""
        self.arguments = []
        for index, value in enumerate(inputs):
            hint = _variable_name(value.blob) if is_root else letters[index] if letters else f"x{index}"
            self.arguments.append(self._add(value.blob, hint))

    def _add(self, blob: str, hint: str) -> str:
        name = next(n for n in (hint, *(f"{hint}_{i}" for i in range(2, len(self.used) + 3))) if n not in self.used)
        self.used.add(name)
        self.by_blob[blob] = name
        return name

    def of(self, value: Value) -> str:
        """Return the variable of a value that is already computed."""
        return self.by_blob[value.blob]

    def new(self, value: Value) -> str:
        """Return the variable for a value that is computed now; an in-place value keeps the variable of its blob."""
        return self.by_blob.get(value.blob) or self._add(value.blob, self._hint(value.blob))

    def _hint(self, blob: str) -> str:
        parts = tuple(attribute_name(part) for part in blob.split("/"))
        if parts[: len(self.scope)] != self.scope:
            return _variable_name(parts[-1].removeprefix(f"{self.scope[-1]}_") or "out")
        return _variable_name("_".join(parts[len(self.scope) :]) or "out")


def _variable_name(blob: str) -> str:
    """Return a valid Python variable name for a blob's name."""
    name = re.sub(r"\W", "_", blob, flags=re.ASCII) or "_"
    name = f"_{name}" if name[0].isdigit() else name
    return f"{name}_" if iskeyword(name) or name in _RESERVED_NAMES else name


def _class_text(init: Sequence[str], arguments: Sequence[str], forward: Sequence[str]) -> str:
    lines = []
    if init:
        lines += ["    def __init__(self):", "        super().__init__()", *(f"        {line}" for line in init), ""]
    head = ", ".join(["self", *arguments])
    return "\n".join([*lines, f"    def forward({head}):", *(f"        {line}" for line in forward)]) + "\n"


def _head_text(model: NetWithWeights, imports: set[str], uses_functional: bool, constants: str) -> str:
    """Return the docstring, the imports and the constants of model.py."""
    lines = {"import torch", "from pathlib import Path", "from torch import nn", *imports}
    if uses_functional:
        lines.add("import torch.nn.functional as F")
    plain = sorted(line for line in lines if line.startswith("import "))
    name = _printable(model.net.name or "A net")
    docstring = f'"""{name}, converted from Caffe by prototxt-gen. It needs PyTorch and safetensors only."""'
    import_lines = "\n".join([*plain, *sorted(lines - set(plain))])
    return f"{docstring}\n\n{import_lines}\n" + (f"\n{constants}" if constants else "")


def _printable(name: str) -> str:
    """Return a name as ASCII without quotes, backslashes and line breaks."""
    return re.sub(r'[\\"\n\r]', " ", name).encode("ascii", "replace").decode()
