"""The smallest pieces that all units share: convolution, BN in each style, activation, upsampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from prototxt_gen.common.errors import one_of
from prototxt_gen.ir import Value
from prototxt_gen.net.builder import Builder
from prototxt_gen.schema.caffe_proto import NOT_LEARNED

BN_STYLES = ("merged", "batchnorm-scale", "frozen")
UPSAMPLINGS = ("interp", "deconvolution")


@dataclass(frozen=True)
class Style:
    """How the pieces are spelled.

    `bn`: `merged` is the fork's BN layer, `frozen` the same but never trained, `batchnorm-scale` BVLC's pair of layers.
    `upsampling`: `interp` is the fork's two-bottom Interp, `deconvolution` a fixed bilinear Deconvolution and a Crop,
    which stock BVLC Caffe has. `conv_param` writes the learning multipliers 1/1 at each convolution.
    """

    bn: str = "merged"
    upsampling: str = "interp"
    conv_param: bool = False

    def __post_init__(self) -> None:
        one_of("bn", self.bn, BN_STYLES)
        one_of("upsampling", self.upsampling, UPSAMPLINGS)


class Kit:
    """A Builder with a Style, and the memory of which blobs have been activated already."""

    def __init__(self, builder: Builder, style: Style) -> None:
        self.builder, self.style = builder, style
        self._activated: dict[Value, Value] = {}

    def conv(
        self, name: str, x: Value, outputs: int, kernel: int = 1, stride: int = 1, pad: int = 0, group: int = 1
    ) -> Value:
        """A convolution without bias, as all in these nets; N×C×H×W → N×outputs×…."""
        fields: dict[str, Any] = {"num_output": outputs, "pad": pad, "kernel_size": kernel, "stride": stride}
        if group > 1:
            fields["group"] = group
        if self.style.conv_param:
            fields["param"] = {"lr_mult": 1, "decay_mult": 1}
        return self.builder.add("Convolution", name, x, **fields, bias_term=False)

    def bn(self, x: Value) -> Value:
        """Batch normalisation of blob `b`, named `b/bn`, with a top of its own."""
        name = f"{x.blob}/bn"
        if self.style.bn != "batchnorm-scale":
            return self.builder.add("BN", name, x, frozen=True)
        normal = self.builder.add("BatchNorm", name, x, use_global_stats=True)
        return self.builder.add("Scale", f"{name}/scale", normal, in_place=True, bias_term=True)

    def relu(self, x: Value) -> Value:
        """ReLU in place on blob `b`, named `b/relu`."""
        return self.builder.add("ReLU", f"{x.blob}/relu", x, in_place=True)

    def activate(self, x: Value) -> Value:
        """BN and ReLU of a blob, added once however many consumers ask for it."""
        if x not in self._activated:
            self._activated[x] = self.relu(self.bn(x))
        return self._activated[x]

    def max_pool(self, name: str, x: Value) -> Value:
        """MAX 3×3/2, which halves the map, rounding up."""
        return self.builder.add("Pooling", name, x, pool="MAX", kernel_size=3, stride=2)

    def add(self, name: str, *terms: Value) -> Value:
        return self.builder.add("Eltwise", name, *terms, operation="SUM")

    def multiply(self, name: str, *factors: Value) -> Value:
        return self.builder.add("Eltwise", name, *factors, operation="PROD")

    def upsample(self, name: str, x: Value, like: Value) -> Value:
        """Bilinear to the size of `like`."""
        if self.style.upsampling == "interp":
            return self.builder.add("Interp", name, x, like)
        return self._deconvolve(name, x, like)

    def _deconvolve(self, name: str, x: Value, like: Value) -> Value:
        """The fixed bilinear kernel of Caffe's `bilinear` filler, then a Crop where the sizes were rounded up."""
        size, wanted = x.known_shape[2:], like.known_shape[2:]
        factor = max(-(-b // a) for a, b in zip(size, wanted, strict=True))
        rounded = any(a * factor != b for a, b in zip(size, wanted, strict=True))
        made = self.builder.add(
            "Deconvolution",
            f"{name}/deconv" if rounded else name,
            x,
            num_output=x.channels,
            group=x.channels,
            kernel_size=2 * factor - factor % 2,
            stride=factor,
            pad=factor // 2,
            bias_term=False,
            weight_filler={"type": "bilinear"},
            param=NOT_LEARNED,
        )
        return self.builder.add("Crop", name, made, like, axis=2, offset=0) if rounded else made
