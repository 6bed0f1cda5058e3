"""`prototxt-gen train`: train as a solver.prototxt says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prototxt_gen.cli import options
from prototxt_gen.cli.command import Command
from prototxt_gen.cli.renamed_options import renamed_option
from prototxt_gen.common.printable import safe

if TYPE_CHECKING:
    from prototxt_gen.train.training_loop import TrainingOutcome

_NEWEST = "newest"
PRECISIONS = click.Choice(["fp32", "tf32", "bf16"])
"""Number formats of activations. Repeated from prototxt_gen.train.device, which imports torch."""
backend_options = options.option_group(
    click.option("--gpu", type=click.IntRange(min=0), metavar="N",
                 show_default="torch: a GPU if there is one and the solver does not say CPU; pycaffe: CPU",
                 help="Number of the GPU to train on."),
    click.option("--workers", type=click.IntRange(min=0), metavar="N", default=2, show_default=True,
                 help="Processes that prepare batches; 0 prepares them in the training process."),
    click.option("--seed", type=click.IntRange(0, 2**32 - 1), metavar="N",
                 show_default="the solver's random_seed, else 1",
                 help="Random seed of data order, augmentation, fillers and Dropout."),
    click.option("--precision", type=PRECISIONS, default="fp32", show_default=True,
                 help="Number format (torch only): fp32; tf32, faster on NVIDIA GPUs, with products rounded to 10 "
                 "bits; bf16, by autocast."),
    click.option("--compile", is_flag=True, help="Compile the net with torch.compile (torch only)."),
    click.option("--memory-efficient", is_flag=True,
                 help="Keep fewer activations and compute them again in the backward pass (torch only)."),
    click.option("--sync-bn", is_flag=True,
                 help="Batch statistics of BN over all processes of torchrun (torch only)."),
    click.option("--bn-statistic", type=options.BN_STATISTIC, show_default="detected",
                 help="What the 4th blob of BN layers in --weights is: variance, or 1/std (inverse-std)."),
)  # fmt: skip


@click.command(
    cls=Command,
    examples=["prototxt-gen train solver.prototxt -o run1", "prototxt-gen train solver.prototxt -o run1 --resume"],
)
@click.argument("solver", type=options.FILE, required=False)
@click.option("--backend", type=options.BACKEND, default="torch", show_default=True,
              help="Runtime that trains: torch, or pycaffe (real Caffe).")  # fmt: skip
@click.option("-o", "--output", type=options.OUTPUT_FOLDER, show_default="the folder of snapshot_prefix",
              help="Output directory.")  # fmt: skip
@renamed_option("--out", "--output", type=options.OUTPUT_FOLDER)
@click.option("--resume", is_flag=False, flag_value=_NEWEST, default="", metavar="[STATE]",
              help="Resume from this .solverstate; without STATE, from the newest complete snapshot.")  # fmt: skip
@click.option("--weights", type=options.FILE, multiple=True,
              help="Start from the weights of this file, for the layers that it has. Repeatable.")  # fmt: skip
@click.option("--snapshot-every", type=click.IntRange(min=0), metavar="N", show_default="the solver's snapshot",
              help="Iterations between snapshots.")  # fmt: skip
@click.option("--max-iter", type=click.IntRange(min=0), metavar="N", show_default="the solver's max_iter",
              help="Number of iterations.")  # fmt: skip
@click.option("--batch", type=click.IntRange(min=1), metavar="N", show_default="the batch_size of the data layers",
              help="Images at a time: batch_size of the data layers of the TRAIN phase.")  # fmt: skip
@backend_options
@options.fork_rules
@click.option("--restart", is_flag=True,
              help="Start at iteration 0 although there are snapshots of an earlier run; they are moved to another "
              "folder.")  # fmt: skip
@renamed_option("--force", "--restart", is_flag=True)
@click.pass_context
def train(context: click.Context, /, solver: Path | None, output: Path | None, **given: Any) -> None:
    """Train the net of SOLVER, a solver.prototxt.

    Writes snapshots (.caffemodel and .solverstate, which Caffe and both backends can resume from), and beside them
    NAME_metrics.csv, NAME_events (TensorBoard) and NAME_curve.png and .svg, where NAME is the end of snapshot_prefix.
    Ctrl-C or SIGTERM: the iteration ends and a snapshot is written; --resume then continues to the same weights as an
    unbroken run.
    """
    from prototxt_gen.train.backend import Settings
    from prototxt_gen.train.training_run import TrainingJob, is_first_process, run

    if solver is None and given["resume"] not in ("", _NEWEST):
        solver, given["resume"] = Path(given["resume"]), _NEWEST  # `train --resume solver.prototxt`
    if solver is None:
        raise click.UsageError("Missing argument 'SOLVER'.")
    settings = Settings(**{name: given.pop(name) for name in Settings.__dataclass_fields__})
    outcome = run(TrainingJob(solver, out=output, settings=settings, **given))
    if is_first_process():
        for line in _summary(outcome):
            click.echo(safe(line))
    context.exit(outcome.exit_code)


def _summary(outcome: TrainingOutcome) -> Iterator[str]:
    yield f"{'stopped at' if outcome.exit_code else 'trained to'} iteration {outcome.iteration}"
    when = "" if outcome.tested_at in (None, outcome.iteration) else f" (at iteration {outcome.tested_at})"
    yield from (f"{name}: {value:.6g}{when}" for name, value in outcome.scores.items())
    yield from (str(path) for path in (outcome.state, *outcome.curves) if path)
