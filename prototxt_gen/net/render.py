"""Net to prototxt text, through Jinja2 templates that lay out and never decide.

What a template makes is parsed back, filled into protobuf messages and compared with the net: a template that loses or
changes anything is an error, not a wrong file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import jinja2

from prototxt_gen.analysis import LayerKey
from prototxt_gen.common.errors import NetError, PrototxtError, PrototxtGenError
from prototxt_gen.ir import Layer, Net, Shape, show
from prototxt_gen.schema.caffe_proto import SolverParameter
from prototxt_gen.schema.message import Message
from prototxt_gen.text import format_fields, format_scalar, parse

_INSTALLED = Path(__file__).parents[1] / "templates"
_CHECKOUT = Path(__file__).parents[2] / "templates"


def _fields(message: Message, indent: int) -> str:
    return _fields_in_order(message, _order(message), indent)


def _order(message: Message) -> tuple[Any, ...]:
    """Return the names of the fields as they were written, here and below: equal messages may differ in it."""
    return tuple(
        (
            name,
            tuple(_order(one) for one in (value if isinstance(value, tuple) else (value,)) if isinstance(one, Message)),
        )
        for name, value in message.set_fields()
    )


@lru_cache(maxsize=4096)
def _fields_in_order(message: Message, order: tuple[Any, ...], indent: int) -> str:
    return format_fields(message.to_text(), indent)


@cache
def environment(templates: str = "") -> jinja2.Environment:
    """Return the Jinja2 environment; a user's folder of templates goes before ours."""
    folders = [folder for folder in (templates, _INSTALLED, _CHECKOUT) if folder and Path(folder).is_dir()]
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader([str(folder) for folder in folders]),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
    )
    made.filters.update(quoted=format_scalar, fields=_fields, shape=show)
    return made


def render(name: str, templates: str = "", **context: Any) -> str:
    """Render one template; PrototxtGenError, naming file and line, where the template is at fault."""
    try:
        return environment(templates).get_template(name).render(**context)
    except jinja2.TemplateSyntaxError as error:
        raise PrototxtGenError(f"template {error.filename or name}, line {error.lineno}: {error.message}") from None
    except jinja2.TemplateNotFound:
        raise PrototxtGenError(f"there is no template {name!r}") from None
    except jinja2.TemplateError as error:
        raise PrototxtGenError(f"template {name}: {error}") from None


def net_text(net: Net, shapes: Mapping[LayerKey, Sequence[Shape | None]] | None = None, templates: str = "") -> str:
    """Return the prototxt of a net, each layer preceded by a comment of its tops' shapes.

    `shapes` is what `analysis.top_shapes` gives; without, those that the tops carry themselves are shown.
    Raises NetError where the template made a text that does not mean this net.
    """
    commented = [(layer, _comment(layer, shapes or {})) for layer in net.layers]
    text = render("net.prototxt.j2", templates, net=net, layers=commented)
    check_text(text, net)
    return text


def solver_text(solver: SolverParameter, comments: tuple[str, ...] = (), templates: str = "") -> str:
    """Return the prototxt of a solver, after the comment lines."""
    text = render("solver.prototxt.j2", templates, solver=solver, comments=comments)
    if SolverParameter.from_text(parse(text)) != solver:
        raise NetError("the template solver.prototxt.j2 changes the solver it lays out")
    return text


def _comment(layer: Layer, shapes: Mapping[LayerKey, Sequence[Shape | None]]) -> str:
    known = shapes.get((layer.name, layer.params)) or [top.shape for top in layer.tops]
    return ", ".join(show(shape) for shape in known) if known and None not in known else ""


def check_text(text: str, net: Net) -> None:
    """Raise NetError unless the text, read into protobuf messages, equals the net."""
    from prototxt_gen.net.to_protobuf import classes, fill_from_text, to_protobuf

    made = classes(None)["NetParameter"]()
    try:
        extras = fill_from_text(made, parse(text))
    except (PrototxtError, ValueError, TypeError) as error:
        raise NetError(f"the template net.prototxt.j2 makes a text that cannot be read back: {error}") from None
    kept = sum(1 for layer in net.layers for _ in layer.params.walk_extras()) + len(list(net.params.walk_extras()))
    if made != to_protobuf(net) or extras != kept:
        raise NetError("the template net.prototxt.j2 makes a text that is not the net it was given")
