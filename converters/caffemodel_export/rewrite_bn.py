"""Between forms of Caffe: batch normalisation merged, split or folded, in net and weights, and any fork's numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from converters.common.net_with_weights import Reading, Subject, open_subject
from converters.common.staged_output import staged
from converters.verification.runtimes import Blobs
from converters.verification.verification_report import NotVerifiedError
from converters.verification.verify import Report, verify
from converters.write_models import Conversion
from prototxt_gen import weights
from prototxt_gen.analysis import Analysis, analyse
from prototxt_gen.common.errors import NetError, PrototxtGenError
from prototxt_gen.ir import Net
from prototxt_gen.net import phase_rules
from prototxt_gen.net.lowering_checks import ready, sources, without_fields
from prototxt_gen.net.render import net_text
from prototxt_gen.passes.bn_fold import fold
from prototxt_gen.passes.bn_merge import merge
from prototxt_gen.passes.bn_split import split
from prototxt_gen.schema.dialect import Dialect, dialect
from prototxt_gen.weights import Array, Weights, as_inverse_std, as_variance

FORMS = ("merged", "batchnorm-scale", "folded")


@dataclass(frozen=True)
class Rewritten:
    """A net of all phases and its weights in another form; `analysis` is that of the phase that was read."""

    net: Net
    analysis: Analysis
    weights: Weights
    remarks: tuple[str, ...] = ()


def rewritten(net: Net, path: Path, form: str, how: Reading) -> Rewritten:
    """Return a net and its weights with its batch normalisation in another form.

    "merged": BN, four blobs in one layer. "batchnorm-scale": what BVLC's Caffe has. "folded": gone into the layers
    before, where they can take it; of a net of several phases, the one that is read.
    """
    if form not in FORMS:
        raise PrototxtGenError(f"form {form!r}: there are {', '.join(FORMS)}")
    whole = without_fields(net, how.ignored)
    test = _at(whole, how)
    analysis = ready(test, how.shapes)
    found = weights.read(path, analysis, how.dialect, how.statistic)
    given = {value.blob: analysis.shapes[value] for value in sources(test)}
    if form == "folded":
        if any(map(phase_rules.is_ending, test.layers)):
            raise NetError(f"{net.source}: folding is for nets that train no more; make it a deploy net first")
        folded, made = fold(analysis, found)
        return Rewritten(folded.net, folded, made, found.remarks)
    changed, made = (merge if form == "merged" else split)(whole, found)
    return Rewritten(changed, _phase(changed, how, given), made, found.remarks)


def _phase(net: Net, how: Reading, given: Mapping[str, tuple[int, ...]]) -> Analysis:
    return analyse(_at(net, how), given)


def _at(net: Net, how: Reading) -> Net:
    return net.at(how.phase, (*net.params.state.stage, *how.stages), how.level)


def meant(made: Rewritten, statistic: str, target: Dialect) -> Rewritten:
    """Return the weights with BN's fourth blob as asked for, or as the fork has it."""
    if not any(layer.type == "BN" for layer in made.analysis.net.layers):
        return made
    wanted = statistic or target.bn_statistic
    if not wanted:
        raise PrototxtGenError(
            f"what the fourth blob of BN holds is not settled in {target.name}: give --to-statistic inverse-std "
            "or variance"
        )
    convert = as_inverse_std if wanted == "inverse_std" else as_variance
    odd = (_not_its_own(wanted, target),) if target.bn_statistic not in ("", wanted) else ()
    return replace(made, weights=convert(made.weights, made.analysis), remarks=(*made.remarks, *odd))


def _not_its_own(statistic: str, target: Dialect) -> str:
    own, hyphened = target.bn_statistic.replace("_", " "), statistic.replace("_", "-")
    return (
        f"{target.name} takes the fourth blob of BN for its {own}, and so does whoever reads its numbers: say "
        f"--bn-statistic {hyphened} whenever this file is read"
    )


def write_form(
    net: Net, path: Path, folder: Path, form: str, how: Reading, target: str, statistic: str = "", force: bool = False
) -> Conversion:
    """Write net and weights in another form into `folder`, under their own names, in a fork's numbers.

    Both are read back and run beside the original; NotVerifiedError, and nothing written, where they differ.
    """
    made = meant(rewritten(net, path, form, how), statistic, dialect(target))
    names = (Path(net.source).name or "net.prototxt", _weights_name(path))
    with staged(folder, force, is_folder=True) as place:
        place.mkdir()
        prototxt, model = place / names[0], place / names[1]
        prototxt.write_bytes(net_text(made.net).encode("utf-8", "surrogateescape"))
        weights.write(model, made.analysis, made.weights, dialect(target))
        report = _verify(net, path, prototxt, model, how, statistic or dialect(target).bn_statistic)
    return Conversion(tuple(folder / name for name in names), report, made.remarks)


def _weights_name(path: Path) -> str:
    stem = path.name.removesuffix(".h5")
    return stem if stem.endswith(".caffemodel") else f"{stem}.caffemodel"


def _verify(net: Net, path: Path, prototxt: Path, model: Path, how: Reading, statistic: str) -> Report:
    """Run what was written, in PyTorch, beside what was read."""
    from converters.verification.comparison_inputs import seeded
    from converters.verification.runtimes import run_torch

    before = open_subject(net, path, how)
    after = open_subject(prototxt, model, replace(how, dialect=None, statistic=statistic or None, ignored=()))
    moved = _moved(before.net, after.net)

    def run(_: Subject, inputs: Mapping[str, Array]) -> Blobs:
        return {blob: array for blob, array in run_torch(after, inputs).items() if blob not in moved}

    report = verify(before, seeded(before), ("torch",), {"rewritten": run})
    if not report.verified:
        raise NotVerifiedError(report)
    return report


def _moved(before: Net, after: Net) -> set[str]:
    """Return the blobs that the layer which wrote them last writes no more: BN in their place, its Scale merged."""
    blobs = {layer.name: {value.blob for value in layer.tops} for layer in after.layers}
    last = {value.blob: layer.name for layer in before.layers for value in layer.tops}
    return {blob for blob, name in last.items() if name in blobs and blob not in blobs[name]}
