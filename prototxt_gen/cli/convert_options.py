"""What the conversions' commands and `verify` share: how the files are read, and what is said in the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prototxt_gen.cli import options
from prototxt_gen.common.errors import PrototxtGenError
from prototxt_gen.common.printable import safe_lines

if TYPE_CHECKING:
    from converters.common.net_with_weights import Reading, Subject
    from converters.common.preprocessing import Preprocessing
    from converters.write_models import Conversion
    from prototxt_gen.ir import Net


def _means(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[float, ...] | None:
    if value is None:
        return None
    try:
        return tuple(float(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r} is not numbers with commas between them") from None


STATISTIC = click.Choice(["inverse-std", "variance"])
IGNORED = click.option(
    "--ignore-field", "ignored", multiple=True, metavar="NAME", help="An unknown field that changes nothing."
)
PLUGIN = click.option(
    "--plugin", "plugins", multiple=True, type=options.FILE, help="A Python file with layers of yours."
)
READING = [
    click.argument("net", type=options.FILE),
    click.argument("weights", type=options.FILE, required=False),
    options.phase_of("TEST"),
    options.stage,
    options.level,
    options.input_size,
    options.shape,
    click.option("--dialect", metavar="FORK", help="The fork that wrote the weights, where they do not tell."),
    click.option("--bn-statistic", "statistic", type=STATISTIC, help="What the fourth blob of BN holds."),
    IGNORED,
    PLUGIN,
]
PREPROCESSING = [
    click.option("--mean", callback=_means, metavar="B,G,R", help="Mean per channel, carried along as metadata."),
    click.option("--mean-file", type=options.FILE, help="Mean image, .binaryproto or .npy, carried along."),
    click.option("--scale", type=float, help="Factor after the mean is taken off, carried along."),
    click.option(
        "--channel-order", type=click.Choice(["BGR", "RGB", "GRAY"], case_sensitive=False), help="Carried along."
    ),
]


def decorated(*groups: list[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    """Return a decorator that adds groups of options, in this order."""

    def decorate(command: Any) -> Any:
        for option in reversed([option for group in groups for option in group]):
            command = option(command)
        return command

    return decorate


def subject(net: Path, weights: Path | None, **given: Any) -> Subject:
    """Read net and weights as the options of READING, and where given PREPROCESSING, say.

    A net that learns nothing needs no weights.
    """
    from converters.common.net_with_weights import open_subject
    from prototxt_gen.ir import Net

    load_plugins(given["plugins"])
    _, read = options.read_any(net)
    if not isinstance(read, Net):
        raise PrototxtGenError(f"{net}: a solver, not a net; give the net's own file")
    made = open_subject(net, weights, read_as(read, given))
    return _with_preprocessing(made, given)


def load_plugins(files: Iterable[Path]) -> None:
    """Load the files of --plugin."""
    from prototxt_gen.layers import plugins

    for file in files:
        plugins.load(file)


def read_as(net: Net, given: dict[str, Any]) -> Reading:
    """Return how the options of READING say a net and its weights are to be read."""
    from converters.common.net_with_weights import Reading

    return Reading(
        phase=(given["phase"] or "TEST").upper(),
        stages=given["stages"],
        level=given["level"],
        shapes=options.given_shapes(net, None, given["shapes"]),
        size=options.numbers(given["size"], "--input-size") if given["size"] else (),
        dialect=given["dialect"],
        statistic=given["statistic"] and given["statistic"].replace("-", "_"),
        ignored=given["ignored"],
    )


def preprocessing_told(found: Preprocessing, given: dict[str, Any]) -> Preprocessing:
    """Return the preprocessing that was found, with what the options of PREPROCESSING give in its place."""
    from converters.common.preprocessing import changed, read_mean

    order = given.get("channel_order")
    told = {
        "mean": given.get("mean"),
        "mean_image": read_mean(given["mean_file"]) if given.get("mean_file") else None,
        "scale": given.get("scale"),
        "channel_order": order.upper() if order else None,
    }
    return changed(found, told)


def _with_preprocessing(made: Subject, given: dict[str, Any]) -> Subject:
    from dataclasses import replace

    found = preprocessing_told(made.preprocessing, given)
    images = [value for value in made.sources if len(made.analysis.shapes[value]) == 4]
    if images:
        found.check_channels(made.analysis.shapes[images[0]][1])
    return replace(made, preprocessing=found)


def echo_notes(remarks: Iterable[str]) -> None:
    """Say on stderr what is to be known of a conversion."""
    for remark in remarks:
        click.echo(f"note: {safe_lines(remark)}", err=True)


def echo_conversion(done: Conversion) -> None:
    """Say on stderr what is to be known of a conversion, and print the files on stdout."""
    from converters.verification.verification_report import sentences

    echo_notes(done.remarks)
    for sentence in sentences(done.report) if done.report else ["not verified, as told"]:
        click.echo(safe_lines(sentence), err=True)
    for file in done.files:
        click.echo(file)
