"""Deploy nets whose BatchNorm layers normalise by the learned statistics, where training left the batch's in place."""

from __future__ import annotations

from dataclasses import replace

from prototxt_gen.ir import Layer, Net
from prototxt_gen.layers.normalization.batch_norm import BatchNormParameter


def with_global_statistics(net: Net) -> tuple[Net, list[str]]:
    """Return the net with use_global_stats: true where it is false, and the names of the changed layers."""
    changed = [layer.name for layer in net.layers if _has_batch_statistics(layer)]
    return net.map(lambda layer: _by_learned_statistics(layer) if _has_batch_statistics(layer) else layer), changed


def _has_batch_statistics(layer: Layer) -> bool:
    p = layer.get(BatchNormParameter)
    return layer.type == "BatchNorm" and p.has("use_global_stats") and not p.use_global_stats


def _by_learned_statistics(layer: Layer) -> Layer:
    p = layer.get(BatchNormParameter).replace(use_global_stats=True)
    return replace(layer, params=layer.params.replace(batch_norm_param=p))
