"""Rewriting batch normalisation in a net and its weights: merged, split or folded, and written for any Caffe fork."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from converters.common.net_with_weights import NetWithWeights, ReadOptions, read_net_with_weights
from converters.common.staged_output import staged_output
from converters.verification.runtimes import Blobs
from converters.verification.verification_report import NotVerifiedError
from converters.verification.verify import VerificationReport, verify
from converters.write_models import ConversionResult
from prototxt_gen import weights
from prototxt_gen.analysis import Analysis, analyse
from prototxt_gen.common.errors import NetError, PrototxtGenError
from prototxt_gen.ir import Net
from prototxt_gen.net import phase_rules
from prototxt_gen.net.crop_alignment import with_crop_offsets_in_all_phases
from prototxt_gen.net.lowering_checks import analyse_for_conversion, net_inputs, without_unknown_fields
from prototxt_gen.net.render import net_text
from prototxt_gen.passes.bn_fold import fold_normalisation
from prototxt_gen.passes.bn_merge import merge_batch_norms
from prototxt_gen.passes.bn_split import split_batch_norms
from prototxt_gen.schema.dialect import Dialect, find_dialect
from prototxt_gen.weights import Array, Weights, as_inverse_std, as_variance

BN_FORMS = ("merged", "batchnorm-scale", "folded")
"""BN layers; BatchNorm followed by Scale; no batch normalisation, as it is folded into the layers above."""


@dataclass(frozen=True)
class RewrittenNet:
    """A net and its weights after rewriting.

    `net` has the layers of all phases, or of one phase if its batch normalisation was folded. `analysis` is that of
    the phase that the weights were read for.
    """

    net: Net
    analysis: Analysis
    weights: Weights
    remarks: tuple[str, ...] = ()


def with_bn_form(net: Net, weights_path: Path, form: str, options: ReadOptions) -> RewrittenNet:
    """Return the net and its weights with all batch normalisation in one form.

    `form`: "merged" for BN layers, which hold four blobs; "batchnorm-scale" for BatchNorm and Scale, as in BVLC's
    Caffe; "folded" for none, where the layer above can take it up. Folding keeps only the phase that is read. Raises
    PrototxtGenError for another form, and NetError if a net with losses is to be folded.
    """
    if form not in BN_FORMS:
        raise PrototxtGenError(f"form {form!r}: there are {', '.join(BN_FORMS)}")
    all_phases = without_unknown_fields(net, options.ignore_fields)
    all_phases = with_crop_offsets_in_all_phases(all_phases, options.fork_rules.crop)
    phase_net = _net_at_phase(all_phases, options)
    analysis = analyse_for_conversion(phase_net, options.shapes)
    old = weights.read(weights_path, analysis, options.dialect, options.bn_statistic)
    if form == "folded":
        if any(map(phase_rules.is_loss_or_metric, phase_net.layers)):
            raise NetError(f"{net.source}: a net with losses cannot be folded; turn it into a deploy net first")
        folded, new = fold_normalisation(analysis, old)
        return RewrittenNet(folded.net, folded, new, old.remarks)
    changed, new = (merge_batch_norms if form == "merged" else split_batch_norms)(all_phases, old)
    shapes = {value.blob: analysis.shapes[value] for value in net_inputs(phase_net)}
    return RewrittenNet(changed, analyse(_net_at_phase(changed, options), shapes), new, old.remarks)


def _net_at_phase(net: Net, options: ReadOptions) -> Net:
    return net.at(options.phase, (*net.params.state.stage, *options.stages), options.level)


def with_bn_statistic(rewritten: RewrittenNet, bn_statistic: str, target: Dialect) -> RewrittenNet:
    """Return the net with the fourth blob of its BN layers converted.

    `bn_statistic`: "inverse_std" or "variance"; empty for the one that the target fork uses. Raises PrototxtGenError
    if it is empty and unknown for the fork. A net without BN is returned unchanged.
    """
    if not any(layer.type == "BN" for layer in rewritten.analysis.net.layers):
        return rewritten
    bn_statistic = bn_statistic or target.bn_statistic
    if not bn_statistic:
        raise PrototxtGenError(
            f"it is not known what the fourth blob of BN holds in {target.name}: give --to-statistic inverse-std "
            "or variance"
        )
    convert = as_inverse_std if bn_statistic == "inverse_std" else as_variance
    is_unusual = target.bn_statistic not in ("", bn_statistic)
    remarks = (*rewritten.remarks, _unusual_statistic_remark(bn_statistic, target)) if is_unusual else rewritten.remarks
    return replace(rewritten, weights=convert(rewritten.weights, rewritten.analysis), remarks=remarks)


def _unusual_statistic_remark(bn_statistic: str, target: Dialect) -> str:
    return (
        f"{target.name} reads the fourth blob of BN as its {target.bn_statistic.replace('_', ' ')}; to read this file, "
        f"give --bn-statistic {bn_statistic.replace('_', '-')}"
    )


def write_bn_form(
    net: Net,
    weights_path: Path,
    folder: Path,
    form: str,
    options: ReadOptions,
    to_dialect: str,
    to_statistic: str = "",
    force: bool = False,
) -> ConversionResult:
    """Rewrite the batch normalisation of a net and its weights, and write both into `folder` under their old names.

    `form`: one of BN_FORMS. `to_dialect`: the Caffe fork that will read the weights. `to_statistic`: content of the
    fourth blob of BN, by default the one that the fork uses. The written files are read again and compared with the
    original in PyTorch. Raises NotVerifiedError, and writes nothing, if they differ.
    """
    target = find_dialect(to_dialect)
    rewritten = with_bn_statistic(with_bn_form(net, weights_path, form, options), to_statistic, target)
    names = (Path(net.source).name or "net.prototxt", _caffemodel_name(weights_path))
    with staged_output(folder, force, is_folder=True) as temporary:
        temporary.mkdir()
        prototxt, caffemodel = temporary / names[0], temporary / names[1]
        before = read_net_with_weights(net, weights_path, options)
        text = before.preprocessing.prototxt_comment() + net_text(rewritten.net)
        prototxt.write_bytes(text.encode("utf-8", "surrogateescape"))
        weights.write(caffemodel, rewritten.analysis, rewritten.weights, target)
        written_statistic = to_statistic or target.bn_statistic or None
        new_options = replace(options, dialect=None, bn_statistic=written_statistic, ignore_fields=())
        report = _verify_same(before, read_net_with_weights(prototxt, caffemodel, new_options))
    return ConversionResult(tuple(folder / name for name in names), report, rewritten.remarks)


def _caffemodel_name(weights_path: Path) -> str:
    stem = weights_path.name.removesuffix(".h5")
    return stem if stem.endswith(".caffemodel") else f"{stem}.caffemodel"


def _verify_same(before: NetWithWeights, after: NetWithWeights) -> VerificationReport:
    """Compare the rewritten net with the original in PyTorch. Raises NotVerifiedError if they differ."""
    from converters.verification.comparison_inputs import seeded_inputs
    from converters.verification.runtimes import run_torch

    skipped = _blobs_with_other_last_layer(before.net, after.net)

    def run(_: NetWithWeights, inputs: Mapping[str, Array]) -> Blobs:
        return {blob: array for blob, array in run_torch(after, inputs).items() if blob not in skipped}

    report = verify(before, seeded_inputs(before), ("torch",), {"rewritten": run})
    if not report.verified:
        raise NotVerifiedError(report)
    return report


def _blobs_with_other_last_layer(before: Net, after: Net) -> set[str]:
    """Return the blobs whose last layer still exists but has another top now, as happens where a Scale is merged."""
    tops_after = {layer.name: {value.blob for value in layer.tops} for layer in after.layers}
    last_layers = {value.blob: layer.name for layer in before.layers for value in layer.tops}
    return {blob for blob, name in last_layers.items() if name in tops_after and blob not in tops_after[name]}
