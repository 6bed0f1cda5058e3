"""What `eval` and `classify` share: options of nets and pictures, and what they open."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prototxt_gen.cli import options
from prototxt_gen.cli.convert_options import PREPROCESSING, READING, subject
from prototxt_gen.common.errors import PrototxtGenError
from prototxt_gen.common.printable import safe_lines

if TYPE_CHECKING:
    from converters.common.net_with_weights import Subject
    from converters.common.preprocessing import Preprocessing
    from prototxt_gen.data.data_set_reader import Dataset
    from prototxt_gen.evaluate.eval_data import Asked
    from prototxt_gen.evaluate.net_data_layer import OwnData
    from prototxt_gen.evaluate.predictors import Predictor
    from prototxt_gen.evaluate.scores import Samples

DATA = ("data", "kind", "split", "root", "crops", "resize")


def _sizes(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, ...]:
    return options.numbers(value, "--resize") if value else ()


net_and_weights = options.all_of(
    [
        click.argument("net", type=options.FILE),
        click.argument("weights", type=options.FILE, required=False),
        *READING[2:],  # less its arguments, of which one may be missing here
        click.option("--output", default="", metavar="BLOB", help="The output with the scores; the last unless told."),
    ]
)
pictures = options.all_of(
    [
        click.option("--crops", type=click.Choice(["1", "10"]), default="1", show_default=True,
                     callback=lambda context, parameter, value: int(value),
                     help="1: the middle; 10: corners and middle, and their mirror images."),
        click.option("--resize", callback=_sizes, metavar="SIZE",
                     help="Before the crop: 256, the shorter side, or 240x320. Picture files are fitted unless told."),
        *PREPROCESSING,
    ]
)  # fmt: skip


@dataclass(frozen=True)
class Model:
    """What NET and WEIGHTS are: a net read for conversion, or a converted file that runs by itself."""

    input: tuple[int, ...]
    preprocessing: Preprocessing
    own: OwnData | None = None
    subject: Subject | None = None
    predictor: Predictor | None = None


@dataclass(frozen=True)
class Opened:
    """What `eval` needs: samples, the names of their classes, and the runtimes one after another."""

    samples: Samples
    names: Sequence[str]
    predictors: Callable[[], Iterator[Predictor]]


def open_all(
    net: Path, weights: Path | None, backends: tuple[str, ...], gpu: int | None, output: str = "", **given: Any
) -> Opened:
    """Open net, weights and data as the options say."""
    from prototxt_gen.evaluate.converted_predictors import is_converted
    from prototxt_gen.evaluate.eval_data import Asked, class_names, open_data, recipe_for
    from prototxt_gen.evaluate.predictors import predictor
    from prototxt_gen.evaluate.scores import Samples

    asked, converted = Asked(**{name: given.pop(name) for name in DATA}), is_converted(net)
    if converted and (backends or gpu is not None):
        raise PrototxtGenError(f"{net}: a converted model has its own runtime; --backend and --gpu are for prototxts")
    if converted:
        model = open_converted_model(net, weights, output, **given)
        dataset = open_data(asked, None, model.input[0])
    else:
        model, dataset = _open_net(net, weights, asked, **given)
    samples = Samples(dataset, recipe_for(model.input, model.preprocessing, model.own, asked, dataset), model.input)

    def predictors() -> Iterator[Predictor]:
        if model.predictor is not None:
            yield model.predictor
        elif model.subject is not None:
            yield from (predictor(name, model.subject, output, gpu) for name in backends or ("torch",))

    return Opened(samples, class_names(dataset), predictors)


def open_converted_model(path: Path, weights: Path | None, output: str, **given: Any) -> Model:
    """Return a converted model; options of preprocessing are stronger than what it carries."""
    from prototxt_gen.cli.convert_options import preprocessing_told
    from prototxt_gen.evaluate.converted_predictors import open_converted

    if weights is not None:
        raise PrototxtGenError(f"{weights}: {path} has its weights inside; give it alone")
    made, carried = open_converted(path, output)
    return Model(tuple(made.input), preprocessing_told(carried, given), predictor=made)


def open_net(net: Path, weights: Path | None, own: OwnData | None, **given: Any) -> Model:
    """Read a prototxt and its weights."""
    from prototxt_gen.evaluate.predictors import image_input

    if weights is None:
        raise PrototxtGenError(f"{net}: a prototxt needs weights: give NET and WEIGHTS")
    made = subject(net, weights, **given)
    for remark in made.remarks:
        click.echo(f"note: {safe_lines(remark)}", err=True)
    return Model(made.analysis.shapes[image_input(made)][1:], made.preprocessing, own, made)


def own_data_of(net: Path, stages: tuple[str, ...] = (), level: int = 0) -> OwnData | None:
    """Return what the net's own TEST data layer says."""
    from prototxt_gen.evaluate.net_data_layer import own_data

    return own_data(options.in_phase(options.read_whole(net), "TEST", stages, level))


def for_pictures(own: OwnData | None, shapes: tuple[str, ...]) -> tuple[OwnData | None, tuple[str, ...]]:
    """Return a net's own layer as it counts for single picture files, and --shape with what it knows of its size."""
    if own is None:
        return None, shapes
    how, color = own.augment, own.opening.get("color")
    if (
        how is not None
        and how.crop
        and color is not None
        and not any(text.startswith(f"{own.top}=") for text in shapes)
    ):
        shapes = (*shapes, f"{own.top}=1x{3 if color else 1}x{how.crop}x{how.crop}")
    return replace(own, source=""), shapes


def _open_net(net: Path, weights: Path | None, asked: Asked, **given: Any) -> tuple[Model, Dataset]:
    """Open the net and the data: where the net has a data layer, a sample tells the shape of its top."""
    from prototxt_gen.evaluate.eval_data import open_data

    own = own_data_of(net, given["stages"], given["level"])
    if own is None or not own.source:
        model = open_net(net, weights, own, **given)
        return model, open_data(asked, own, model.input[0])
    dataset = open_data(asked, own)
    if not given["size"] and not any(text.startswith(f"{own.top}=") for text in given["shapes"]):
        own = replace(own, resize=asked.resize if len(asked.resize) == 2 else own.resize)
        shape = own.shape(dataset[0][0].shape)
        given["shapes"] = (*given["shapes"], f"{own.top}={'x'.join(map(str, shape))}")
    return open_net(net, weights, own, **given), dataset
