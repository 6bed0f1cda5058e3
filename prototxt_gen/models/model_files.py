"""Everything a model of the zoo is on disk: deploy.prototxt, train_val.prototxt, solver.prototxt and its card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prototxt_gen.analysis import Analysis, Row, analyse, top_shapes
from prototxt_gen.common import files
from prototxt_gen.ir import Net, show
from prototxt_gen.models.solver_recipes import solver
from prototxt_gen.net.render import net_text, render, solver_text
from prototxt_gen.passes.to_train_val import Data, train_val
from prototxt_gen.schema.caffe_proto import SolverParameter

if TYPE_CHECKING:
    from prototxt_gen.models.residual_nets import ResidualNet

FILES = ("deploy.prototxt", "train_val.prototxt", "solver.prototxt", "README.md")


@dataclass(frozen=True)
class Model:
    """A net of the zoo, or a variant, with its data and its recipe. `solver_changes` override fields of the solver."""

    config: ResidualNet
    data: Data
    recipe: str
    solver_changes: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def deploy(self) -> Net:
        return self.config.build()

    @cached_property
    def train_val(self) -> Net:
        return train_val(self.deploy, self.data, freeze_bn=self.config.bn == "frozen")

    @property
    def solver(self) -> SolverParameter:
        return solver(self.recipe, "train_val.prototxt", f"snapshots/{self.deploy.name.lower()}", **self.solver_changes)

    @cached_property
    def analysis(self) -> Analysis:
        return analyse(self.deploy)

    def texts(self, templates: str = "") -> dict[str, str]:
        """Return the four files' texts by name."""
        image = self.deploy.inputs[0].known_shape[1:]
        batches = {"TRAIN": self.data.batch, "TEST": self.data.test_batch}
        given = {phase: {"data": (batch, *image), "label": (batch,)} for phase, batch in batches.items()}
        return {
            "deploy.prototxt": net_text(self.deploy, {}, templates),
            "train_val.prototxt": net_text(self.train_val, top_shapes(self.train_val, given), templates),
            "solver.prototxt": solver_text(self.solver, (f"{self.deploy.name}: the recipe of the paper.",), templates),
            "README.md": render("card.md.j2", templates, **self._card()),
        }

    def write(self, folder: Path, templates: str = "", force: bool = False) -> list[Path]:
        """Write the four files; none is written where any is there already and `force` is not given."""
        paths = [folder / name for name in FILES]
        files.refuse_overwriting(paths, force)
        for name, text in self.texts(templates).items():
            files.write_text(folder / name, text)
        return paths

    def _card(self) -> dict[str, Any]:
        return {
            "config": self.config,
            "net": self.deploy,
            "analysis": self.analysis,
            "stages": list(stages(self.analysis)),
            "data": self.data,
            "solver": self.solver,
            "files": FILES,
        }


@dataclass(frozen=True)
class Stage:
    """One line of a card: all layers whose names begin with the same word."""

    name: str
    output: str
    layers: int
    parameters: int
    macs: int
    activation_bytes: int


def stages(analysis: Analysis) -> Iterator[Stage]:
    """Yield the net's stages in order, grouped by the first part of the slash-separated layer names."""
    for name, group in groupby(analysis.rows, key=lambda row: row.layer.name.split("/")[0].removesuffix("_residual")):
        rows: list[Row] = list(group)
        yield Stage(
            name,
            show(rows[-1].tops[0]) if rows[-1].tops else "",
            len(rows),
            sum(row.parameters for row in rows),
            sum(row.macs or 0 for row in rows),
            sum(row.activation_bytes for row in rows),
        )
