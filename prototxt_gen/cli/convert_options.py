"""What the conversions, `verify`, `eval` and `classify` share: options, reading NET with WEIGHTS, messages."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prototxt_gen.cli import options
from prototxt_gen.cli.output import echo_files
from prototxt_gen.cli.param_types import floats, parse_dims
from prototxt_gen.cli.read_net import read_all_phases, shapes_from_options
from prototxt_gen.common.printable import safe_lines

if TYPE_CHECKING:
    from converters.common.net_with_weights import NetWithWeights, ReadOptions
    from converters.common.preprocessing import Preprocessing
    from converters.write_models import ConversionResult
    from prototxt_gen.ir import Net


reading_options = options.option_group(
    options.phase_option("TEST"),
    options.stage,
    options.level,
    options.input_size,
    options.shape,
    click.option("--dialect", type=options.FORK, show_default="detected", help="Caffe fork that wrote the weights."),
    click.option("--bn-statistic", "statistic", type=options.BN_STATISTIC, show_default="detected",
                 help="What the 4th blob of BN layers in WEIGHTS is: variance, or 1/std (inverse-std)."),
    options.fork_rules,
    options.ignored_fields,
    options.plugins,
)  # fmt: skip
net_and_weights = options.option_group(
    click.argument("net", type=options.FILE),
    click.argument("weights", type=options.FILE, required=False),
    reading_options,
)


def preprocessing_options(
    mean: str, scale: str, order: str, default: str = "that of NET's data layer"
) -> options.Decorator:
    """Return the options of preprocessing; `mean`, `scale` and `order` say what the command does with each."""
    return options.option_group(
        click.option("--mean", type=floats, metavar="B,G,R", show_default=default,
                     help=f"{mean}: one number per channel, or one for all."),
        click.option("--mean-file", type=options.FILE, help=f"{mean}: an image, as .binaryproto or .npy."),
        click.option("--scale", type=float, show_default=default, help=scale),
        click.option("--channel-order", type=click.Choice(["BGR", "RGB", "GRAY"], case_sensitive=False),
                     show_default=default, help=f"Channel order that the net expects; {order}."),
    )  # fmt: skip


stored_preprocessing = preprocessing_options(
    "Mean to store in the output as metadata (the model does not subtract it)",
    "Factor after subtracting the mean, to store in the output as metadata (the model does not apply it).",
    "stored in the output as metadata",
)


def read_model_from_options(net: Path, weights: Path | None, **given: Any) -> NetWithWeights:
    """Read NET and WEIGHTS as the options say. A net without learned blobs needs no weights."""
    from converters.common.net_with_weights import read_net_with_weights

    load_plugins(given["plugins"])
    whole = read_all_phases(net)
    made = read_net_with_weights(net, weights, reading_from_options(whole, given))
    return _with_preprocessing(made, given)


def load_plugins(files: Iterable[Path]) -> None:
    """Load the files of --plugin."""
    from prototxt_gen.layers import plugins

    for file in files:
        plugins.load(file)


def reading_from_options(net: Net, given: dict[str, Any]) -> ReadOptions:
    """Return how a net and its weights are read, from the values of `reading_options`."""
    from converters.common.net_with_weights import ReadOptions
    from prototxt_gen.net.fork_rules import ForkRules

    return ReadOptions(
        phase=(given["phase"] or "TEST").upper(),
        stages=given["stages"],
        level=given["level"],
        shapes=shapes_from_options(net, None, given["shapes"]),
        input_size=parse_dims(given["size"], "--input-size") if given["size"] else (),
        dialect=given["dialect"],
        bn_statistic=statistic_name(given["statistic"]),
        ignore_fields=given["ignored"],
        fork_rules=ForkRules(given["crop_rule"], given["anchor_rule"]),
    )


def statistic_name(choice: str | None) -> str | None:
    """Return a value of --bn-statistic or --to-statistic as the library writes it."""
    return choice and choice.replace("-", "_")


def preprocessing_from_options(found: Preprocessing, given: dict[str, Any]) -> Preprocessing:
    """Return the preprocessing of the net or model, with what the options give in its place."""
    from converters.common.preprocessing import read_mean, with_overrides

    order = given.get("channel_order")
    changes = {
        "mean": given.get("mean"),
        "mean_image": read_mean(given["mean_file"]) if given.get("mean_file") else None,
        "scale": given.get("scale"),
        "channel_order": order.upper() if order else None,
    }
    return with_overrides(found, changes)


def _with_preprocessing(made: NetWithWeights, given: dict[str, Any]) -> NetWithWeights:
    from dataclasses import replace

    found = preprocessing_from_options(made.preprocessing, given)
    images = [value for value in made.input_values if len(made.analysis.shapes[value]) == 4]
    if images:
        found.check_channels(made.analysis.shapes[images[0]][1])
    return replace(made, preprocessing=found)


def echo_notes(remarks: Iterable[str]) -> None:
    """Print notes on a conversion, on stderr."""
    for remark in remarks:
        click.echo(f"note: {safe_lines(remark)}", err=True)


def echo_conversion(done: ConversionResult) -> None:
    """Print notes and the result of the verification on stderr, and the names of the files on stdout."""
    from converters.verification.verification_report import summary_sentences

    echo_notes(done.remarks)
    skipped = [] if done.unverified else ["not verified (--no-verify)"]
    for sentence in summary_sentences(done.report) if done.report else skipped:
        click.echo(safe_lines(sentence), err=True)
    echo_files(done.files)
    if done.unverified:
        click.echo(safe_lines(done.unverified), err=True)
