"""What `eval` and `classify` share: options of nets and images, and opening the net, its data and the runtimes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prototxt_gen.cli import options
from prototxt_gen.cli.convert_options import (
    echo_notes,
    load_plugins,
    net_and_weights,
    preprocessing_from_options,
    preprocessing_options,
    read_model_from_options,
    reading_from_options,
)
from prototxt_gen.cli.param_types import parse_dims
from prototxt_gen.cli.read_net import net_in_phase, read_all_phases
from prototxt_gen.cli.renamed_options import replaced_option
from prototxt_gen.common.errors import PrototxtGenError
from prototxt_gen.common.printable import safe

if TYPE_CHECKING:
    from converters.common.net_with_weights import NetWithWeights
    from converters.common.preprocessing import Preprocessing
    from prototxt_gen.data.data_set_reader import Dataset
    from prototxt_gen.evaluate.eval_data import EvalDataOptions
    from prototxt_gen.evaluate.net_data_layer import NetDataLayer
    from prototxt_gen.evaluate.predictors import Predictor
    from prototxt_gen.evaluate.scores import EvalSamples
    from prototxt_gen.evaluate.test_outputs import TestOutputs

DATA_OPTIONS = ("data", "kind", "split", "root", "crops", "resize")
"""The options that say which images are read and how they are cut: fields of `EvalDataOptions`."""
RUNTIMES = click.Choice(["torch", "onnx", "pycaffe"])


def _dims(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, ...]:
    return parse_dims(value, "--resize") if value else ()


net_options = options.option_group(
    net_and_weights,
    click.option("--top", metavar="BLOB", default="", show_default="the output of the last layer",
                 help="Blob with the scores of the classes: an output of the net."),
    replaced_option("--output", "--output is a file to write; for the blob with the scores write --top {}"),
)  # fmt: skip
image_options = options.option_group(
    click.option("--crops", type=click.Choice(["1", "10"]), default="1", show_default=True,
                 callback=lambda context, parameter, value: int(value),
                 help="Crops per image: 1 (the centre), or 10 (corners and centre, each also mirrored); their scores "
                 "are averaged."),
    click.option("--resize", callback=_dims, metavar="SIZE",
                 show_default="as NET's TEST data layer; else image files to cover the input, data sets unchanged",
                 help="Resize before the crop: 256 is the shorter side, 240x320 is height x width."),
    preprocessing_options(
        "Mean to subtract from the images",
        "Factor applied to the images after subtracting the mean.",
        "images of the other order are reordered",
        default="that of NET's data layer, or stored in a converted model",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class OpenedModel:
    """What NET and WEIGHTS are: a Caffe net (`caffe_model`), or a converted model that runs by itself (`predictor`)."""

    input: tuple[int, ...]
    preprocessing: Preprocessing
    own: NetDataLayer | None = None
    caffe_model: NetWithWeights | None = None
    predictor: Predictor | None = None


@dataclass(frozen=True)
class EvalInputs:
    """What `eval` needs: the samples, the names of their classes, and the runtimes, one after another."""

    samples: EvalSamples
    names: Sequence[str]
    predictors: Callable[[], Iterator[Predictor]]


def open_eval(
    net: Path, weights: Path | None, backends: tuple[str, ...], gpu: int | None, top: str = "", **given: Any
) -> EvalInputs:
    """Open net, weights and data as the options say."""
    from prototxt_gen.evaluate.converted_predictors import is_converted
    from prototxt_gen.evaluate.eval_data import EvalDataOptions, class_names, image_preprocessor, open_eval_dataset
    from prototxt_gen.evaluate.predictors import make_predictor
    from prototxt_gen.evaluate.scores import EvalSamples

    asked, converted = EvalDataOptions(**{name: given.pop(name) for name in DATA_OPTIONS}), is_converted(net)
    if converted and (backends or gpu is not None):
        raise PrototxtGenError(f"{net}: a converted model has its own runtime; --backend and --gpu are for prototxts")
    if converted:
        model = open_converted_model(net, weights, top, **given)
        dataset = open_eval_dataset(asked, None, model.input[0])
    else:
        model, dataset = _open_net_and_data(net, weights, asked, **given)
    warn_if_unknown(net, model)
    samples = EvalSamples(
        dataset, image_preprocessor(model.input, model.preprocessing, model.own, asked, dataset), model.input
    )

    def predictors() -> Iterator[Predictor]:
        if model.predictor is not None:
            yield model.predictor
        elif model.caffe_model is not None:
            yield from (make_predictor(name, model.caffe_model, top, gpu) for name in backends or ("torch",))

    return EvalInputs(samples, class_names(dataset), predictors)


def outputs_of_no_classifier(
    net: Path,
    weights: Path | None,
    backends: tuple[str, ...],
    gpu: int | None,
    iterations: int | None,
    given: dict[str, Any],
) -> TestOutputs | None:
    """Return the TEST outputs of a train_val that is no classifier, on its own data; None for other nets."""
    from prototxt_gen.evaluate.converted_predictors import is_converted
    from prototxt_gen.evaluate.test_outputs import is_classifier, run_test_outputs
    from prototxt_gen.net.phase_rules import is_source_layer

    if weights is None or given["data"] is not None or given["top"] or is_converted(net):
        _refuse_iterations(net, iterations)
        return None
    load_plugins(given["plugins"])
    whole = read_all_phases(net)
    test = net_in_phase(whole, given["phase"] or "TEST", given["stages"], given["level"])
    has_data = any(is_source_layer(layer) and layer.type != "Input" for layer in test.layers)
    if not has_data or is_classifier(test):
        _refuse_iterations(net, iterations)
        return None
    if set(backends) - {"torch"}:
        raise PrototxtGenError(f"{net}: it is no classifier, and only backend torch can run it with its own data")
    echo_notes([f"{net} is no classifier: these are the means of its outputs in the TEST phase"])
    return run_test_outputs(test, weights, reading_from_options(whole, given), iterations, gpu)


def _refuse_iterations(net: Path, iterations: int | None) -> None:
    if iterations is not None:
        raise PrototxtGenError(f"{net}: --iterations is for a train_val that is no classifier, run on its own data")


def open_converted_model(path: Path, weights: Path | None, top: str, **given: Any) -> OpenedModel:
    """Return a converted model; the options of preprocessing replace what is stored in it."""
    from prototxt_gen.evaluate.converted_predictors import open_converted

    if weights is not None:
        raise PrototxtGenError(f"{weights}: {path} has its weights inside; give it alone")
    made, stored = open_converted(path, top)
    return OpenedModel(tuple(made.input), preprocessing_from_options(stored, given), predictor=made)


def open_net(net: Path, weights: Path | None, own: NetDataLayer | None, **given: Any) -> OpenedModel:
    """Read a prototxt and its weights."""
    from prototxt_gen.evaluate.predictors import image_input

    if weights is None:
        raise PrototxtGenError(f"{net}: a prototxt needs weights: give NET and WEIGHTS")
    made = read_model_from_options(net, weights, **given)
    echo_notes(made.remarks)
    return OpenedModel(made.analysis.shapes[image_input(made)][1:], made.preprocessing, own, made)


def warn_if_unknown(net: Path, model: OpenedModel) -> None:
    """Print a warning if neither the net, nor the file, nor an option gives the preprocessing of the images."""
    has_data_layer = model.own is not None and model.own.layer.type != "MemoryData"
    if not model.preprocessing and not has_data_layer:
        click.echo(
            safe(
                f"warning: {net}: nothing says how images are preprocessed for this net, so it gets pixels from 0 to "
                "255 in the order in which they are stored (BGR for image files), without a mean subtracted; give "
                "--mean, --scale and --channel-order, or its train_val"
            ),
            err=True,
        )


def data_layer_of_test(net: Path, stages: tuple[str, ...] = (), level: int = 0) -> NetDataLayer | None:
    """Return what the net's own data layer of the TEST phase reads, None if it has none."""
    from prototxt_gen.evaluate.net_data_layer import net_data_layer

    return net_data_layer(net_in_phase(read_all_phases(net), "TEST", stages, level))


def adapt_to_image_files(
    own: NetDataLayer | None, shapes: tuple[str, ...]
) -> tuple[NetDataLayer | None, tuple[str, ...]]:
    """Return a net's own data layer for single image files, and --shape with the input shape that it tells."""
    if own is None:
        return None, shapes
    color, crop = own.open_options.get("color"), own.augment.crop if own.augment is not None else 0
    if crop and color is not None and not _is_given(own.top, shapes):
        shapes = (*shapes, f"{own.top}=1x{3 if color else 1}x{crop}x{crop}")
    return replace(own, source=""), shapes


def _is_given(blob: str, shapes: tuple[str, ...]) -> bool:
    return any(text.startswith(f"{blob}=") for text in shapes)


def _open_net_and_data(
    net: Path, weights: Path | None, asked: EvalDataOptions, **given: Any
) -> tuple[OpenedModel, Dataset]:
    """Open the net and the data; the first sample gives the shape of the data layer's top."""
    from prototxt_gen.evaluate.eval_data import open_eval_dataset

    own = data_layer_of_test(net, given["stages"], given["level"])
    if own is None or not own.source:
        model = open_net(net, weights, own, **given)
        return model, open_eval_dataset(asked, own, model.input[0])
    dataset = open_eval_dataset(asked, own)
    if not given["size"] and not _is_given(own.top, given["shapes"]):
        own = replace(own, resize=asked.resize if len(asked.resize) == 2 else own.resize)
        shape = own.shape(dataset[0][0].shape)
        given["shapes"] = (*given["shapes"], f"{own.top}={'x'.join(map(str, shape))}")
    return open_net(net, weights, own, **given), dataset
