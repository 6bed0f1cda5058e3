"""The files of a model of the zoo: deploy.prototxt, train_val.prototxt, solver.prototxt and the model card."""

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
from prototxt_gen.models.solver_recipes import recipe_solver
from prototxt_gen.net.preprocessing_comment import preprocessing_comment
from prototxt_gen.net.render import net_text, render, solver_text
from prototxt_gen.passes.to_train_val import DataOptions, to_train_val
from prototxt_gen.schema.caffe_proto import SolverParameter

if TYPE_CHECKING:
    from prototxt_gen.models.residual_nets import ResidualNet

FILES = ("deploy.prototxt", "train_val.prototxt", "solver.prototxt", "README.md")


@dataclass(frozen=True)
class ZooModel:
    """A net of the zoo or a variant, with its data options and the name of its training recipe (see `RECIPES`).

    `solver_changes` are fields of the solver that overrule the recipe.
    """

    config: ResidualNet
    data: DataOptions
    recipe: str
    solver_changes: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def deploy(self) -> Net:
        """The deploy net."""
        return self.config.build()

    @cached_property
    def train_val(self) -> Net:
        """The net for training, with the layers of both phases."""
        return to_train_val(self.deploy, self.data, freeze_bn=self.config.bn == "frozen")

    @property
    def solver(self) -> SolverParameter:
        """The solver of the recipe."""
        return recipe_solver(
            self.recipe, "train_val.prototxt", f"snapshots/{self.deploy.name.lower()}", **self.solver_changes
        )

    @cached_property
    def analysis(self) -> Analysis:
        """Shapes and costs of the deploy net."""
        return analyse(self.deploy)

    def texts(self, templates: str = "") -> dict[str, str]:
        """Return the texts of the four files by file name. `templates` is a folder of the user's own templates."""
        image = self.deploy.inputs[0].known_shape[1:]
        batches = {"TRAIN": self.data.batch, "TEST": self.data.test_batch}
        input_shapes = {phase: {"data": (batch, *image), "label": (batch,)} for phase, batch in batches.items()}
        return {
            "deploy.prototxt": preprocessing_comment(self._preprocessing()) + net_text(self.deploy, {}, templates),
            "train_val.prototxt": net_text(self.train_val, top_shapes(self.train_val, input_shapes), templates),
            "solver.prototxt": solver_text(self.solver, (f"{self.deploy.name}: the recipe of the paper.",), templates),
            "README.md": render("card.md.j2", templates, **self._card()),
        }

    def _preprocessing(self) -> dict[str, Any]:
        """Return the preprocessing of the images in the train_val, for the comment of the deploy net."""
        if self.data.kind not in ("lmdb", "image-list", "python"):
            return {}
        fields: dict[str, Any] = {"formula": "(pixel - mean) * scale", "pixels": "0 to 255", "scale": self.data.scale}
        fields["mean"] = list(self.data.mean)
        if self.data.kind == "image-list" and self.data.channels == 3:
            fields["channel_order"] = "BGR"
        if self.data.kind == "image-list" and self.data.resize:
            fields["resize"] = [self.data.resize] * 2
        return fields

    def write(self, folder: Path, templates: str = "", force: bool = False) -> list[Path]:
        """Write the four files and return their paths. Raises PrototxtGenError if one exists and `force` is not set."""
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
            "stages": list(card_rows(self.analysis)),
            "data": self.data,
            "solver": self.solver,
            "files": FILES,
        }


@dataclass(frozen=True)
class CardRow:
    """One row of the table in a model card: all layers whose names have the same first part. `output` is a shape."""

    name: str
    output: str
    layers: int
    parameters: int
    macs: int
    activation_bytes: int


def card_rows(analysis: Analysis) -> Iterator[CardRow]:
    """Yield a row for each first part of the slash-separated layer names, in the order of the net."""
    for name, group in groupby(analysis.rows, key=lambda row: row.layer.name.split("/")[0].removesuffix("_residual")):
        rows: list[Row] = list(group)
        yield CardRow(
            name,
            show(rows[-1].tops[0]) if rows[-1].tops else "",
            len(rows),
            sum(row.parameters for row in rows),
            sum(row.macs or 0 for row in rows),
            sum(row.activation_bytes for row in rows),
        )
