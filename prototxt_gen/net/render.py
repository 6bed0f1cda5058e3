"""Writer of prototxt text from nets and solvers, with Jinja2 templates that only format and compute nothing.

The rendered text is parsed again and compared with the net, so a template that loses or changes a field raises an error
instead of writing a wrong file.
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


def _format_fields(message: Message, indent: int) -> str:
    return _format_fields_cached(message, _field_order(message), indent)


def _field_order(message: Message) -> tuple[Any, ...]:
    """Return the names of all fields, inner messages included, as ordered; equal messages may differ in their order."""
    return tuple((name, _inner_orders(value)) for name, value in message.set_fields())


def _inner_orders(value: Any) -> tuple[Any, ...]:
    values = value if isinstance(value, tuple) else (value,)
    return tuple(_field_order(inner) for inner in values if isinstance(inner, Message))


@lru_cache(maxsize=4096)
def _format_fields_cached(message: Message, order: tuple[Any, ...], indent: int) -> str:
    return format_fields(message.to_text(), indent)


@cache
def jinja_environment(templates: str = "") -> jinja2.Environment:
    """Return the Jinja2 environment. Templates in the folder `templates` take precedence over the built-in ones."""
    folders = [folder for folder in (templates, _INSTALLED, _CHECKOUT) if folder and Path(folder).is_dir()]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([str(folder) for folder in folders]),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters.update(quoted=format_scalar, fields=_format_fields, shape=show)
    return environment


def render(name: str, templates: str = "", **context: Any) -> str:
    """Return the text of one rendered template. Raises PrototxtGenError, with file and line, if it is wrong."""
    try:
        return jinja_environment(templates).get_template(name).render(**context)
    except jinja2.TemplateSyntaxError as error:
        raise PrototxtGenError(f"template {error.filename or name}, line {error.lineno}: {error.message}") from None
    except jinja2.TemplateNotFound:
        raise PrototxtGenError(f"there is no template {name!r}") from None
    except jinja2.TemplateError as error:
        raise PrototxtGenError(f"template {name}: {error}") from None


def net_text(net: Net, shapes: Mapping[LayerKey, Sequence[Shape | None]] | None = None, templates: str = "") -> str:
    """Return the prototxt of a net, with a comment before each layer that gives the shapes of its tops.

    `shapes` comes from `analysis.top_shapes`. Default: the `shape` attributes of the tops. `templates` is a folder of
    the user's own templates. Raises NetError if the rendered text does not describe this net.
    """
    commented = [(layer, _shape_comment(layer, shapes or {})) for layer in net.layers]
    text = render("net.prototxt.j2", templates, net=net, layers=commented)
    check_text_equals_net(text, net)
    return text


def solver_text(solver: SolverParameter, comments: tuple[str, ...] = (), templates: str = "") -> str:
    """Return the prototxt of a solver, preceded by the comment lines. Raises NetError if the template changes it."""
    text = render("solver.prototxt.j2", templates, solver=solver, comments=comments)
    if SolverParameter.from_text(parse(text)) != solver:
        raise NetError("the text of the template solver.prototxt.j2 differs from the solver it was rendered from")
    return text


def _shape_comment(layer: Layer, shapes: Mapping[LayerKey, Sequence[Shape | None]]) -> str:
    known = shapes.get((layer.name, layer.params)) or [top.shape for top in layer.tops]
    return ", ".join(show(shape) for shape in known) if known and None not in known else ""


def check_text_equals_net(text: str, net: Net) -> None:
    """Raise NetError unless the text, parsed into protobuf messages, equals the net."""
    from prototxt_gen.net.to_protobuf import fill_from_text, protobuf_classes, to_protobuf

    message = protobuf_classes(None)["NetParameter"]()
    try:
        extra_count = fill_from_text(message, parse(text))
    except (PrototxtError, ValueError, TypeError) as error:
        raise NetError(f"the text of the template net.prototxt.j2 cannot be parsed: {error}") from None
    expected = sum(1 for layer in net.layers for _ in layer.params.walk_extras()) + len(list(net.params.walk_extras()))
    if message != to_protobuf(net) or extra_count != expected:
        raise NetError("the text of the template net.prototxt.j2 differs from the net it was rendered from")
