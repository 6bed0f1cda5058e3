"""`prototxt-gen train`: train as a solver.prototxt says, on PyTorch or with real Caffe."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prototxt_gen.cli import options
from prototxt_gen.cli.convert_options import STATISTIC
from prototxt_gen.common.printable import safe

if TYPE_CHECKING:
    from prototxt_gen.train.training_loop import Outcome

_NEWEST = "newest"
_BACKEND_OPTIONS = options.all_of(
    [
        click.option("--gpu", type=click.IntRange(min=0), help="The card to train on."),
        click.option("--workers", type=click.IntRange(min=0), default=2, help="Processes or threads preparing data."),
        click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Of all randomness; the solver's, or 1."),
        click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", help="torch: of activations."),
        click.option("--compile", is_flag=True, help="torch: compile the net first."),
        click.option("--memory-efficient", is_flag=True, help="torch: compute activations again for the gradient."),
        click.option("--sync-bn", is_flag=True, help="torch: batch statistics over all processes."),
        click.option("--bn-statistic", type=STATISTIC, help="What the fourth blob of BN holds in --weights."),
    ]
)


@click.command()
@click.argument("solver", type=options.FILE, required=False)
@click.option("--backend", type=click.Choice(["torch", "pycaffe"]), default="torch", help="What computes.")
@click.option("--out", type=options.FOLDER, help="Folder for all results; that of snapshot_prefix unless told.")
@click.option("--resume", is_flag=False, flag_value=_NEWEST, default="", metavar="[STATE]",
              help="Go on from a .solverstate, the newest complete one unless told.")  # fmt: skip
@click.option("--weights", type=options.FILE, multiple=True, help="Fine-tune: begin with the layers this file has.")
@click.option("--snapshot-every", type=click.IntRange(min=0), help="Instead of the solver's snapshot.")
@click.option("--max-iter", type=click.IntRange(min=0), help="Instead of the solver's max_iter.")
@_BACKEND_OPTIONS
@click.option("--force", is_flag=True, help="Start anew where an earlier run's snapshots are; they are moved aside.")
@click.pass_context
def train(context: click.Context, /, solver: Path | None, **given: Any) -> None:
    """Train as SOLVER says.

    Writes snapshots that Caffe and both backends resume from, metrics.csv, TensorBoard events and the curve. Ctrl-C or
    SIGTERM: the step ends, a snapshot is written, and --resume goes on from there to the very same weights.
    """
    from prototxt_gen.train.backend import Settings
    from prototxt_gen.train.training_run import Job, is_first, run

    if solver is None and given["resume"] not in ("", _NEWEST):
        solver, given["resume"] = Path(given["resume"]), _NEWEST  # `train --resume solver.prototxt`
    if solver is None:
        raise click.UsageError("Missing argument 'SOLVER'.")
    settings = Settings(**{name: given.pop(name) for name in Settings.__dataclass_fields__})
    outcome = run(Job(solver, settings=settings, **given))
    if is_first():
        for line in _summary(outcome):
            click.echo(safe(line))
    context.exit(outcome.exit_code)


def _summary(outcome: Outcome) -> Iterator[str]:
    yield f"{'stopped at' if outcome.exit_code else 'trained to'} iteration {outcome.iteration}"
    yield from (f"{name}: {value:.6g}" for name, value in outcome.scores.items())
    yield from (str(path) for path in (outcome.state, *outcome.curves) if path)
