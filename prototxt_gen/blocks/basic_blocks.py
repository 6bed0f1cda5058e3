"""BlockBuilder: basic blocks that all units use (convolution, BN, activation, pooling, upsampling), in a BlockStyle."""

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
class BlockStyle:
    """Choice of the layer types that the basic blocks are made of.

    `bn`: "merged" is the BN layer of the authors' fork, "frozen" the same without training, "batchnorm-scale" BVLC's
    BatchNorm and Scale. `upsampling`: "interp" is the fork's Interp with two bottoms, "deconvolution" a fixed bilinear
    Deconvolution with a Crop, which BVLC Caffe has. `conv_param` writes `param` with multipliers 1/1 in convolutions.
    """

    bn: str = "merged"
    upsampling: str = "interp"
    conv_param: bool = False

    def __post_init__(self) -> None:
        one_of("bn", self.bn, BN_STYLES)
        one_of("upsampling", self.upsampling, UPSAMPLINGS)


class BlockBuilder:
    """Adds basic blocks to a Builder in a BlockStyle, and remembers which blobs already have BN and ReLU."""

    def __init__(self, builder: Builder, style: BlockStyle) -> None:
        self.builder, self.style = builder, style
        self._activated: dict[Value, Value] = {}

    def conv(
        self, name: str, x: Value, outputs: int, kernel: int = 1, stride: int = 1, pad: int = 0, group: int = 1
    ) -> Value:
        """Add a convolution without bias; return its top N×outputs×H'×W'."""
        fields: dict[str, Any] = {"num_output": outputs, "pad": pad, "kernel_size": kernel, "stride": stride}
        if group > 1:
            fields["group"] = group
        if self.style.conv_param:
            fields["param"] = {"lr_mult": 1, "decay_mult": 1}
        return self.builder.add("Convolution", name, x, **fields, bias_term=False)

    def bn(self, x: Value) -> Value:
        """Add batch normalisation of blob `b`, named `b/bn`; return its top, a new blob."""
        name = f"{x.blob}/bn"
        if self.style.bn != "batchnorm-scale":
            return self.builder.add("BN", name, x, frozen=True)
        normal = self.builder.add("BatchNorm", name, x, use_global_stats=True)
        return self.builder.add("Scale", f"{name}/scale", normal, in_place=True, bias_term=True)

    def relu(self, x: Value) -> Value:
        """Add an in-place ReLU of blob `b`, named `b/relu`; return its top."""
        return self.builder.add("ReLU", f"{x.blob}/relu", x, in_place=True)

    def activate(self, x: Value) -> Value:
        """Return BN and ReLU of a blob, added only once even if several layers need it."""
        if x not in self._activated:
            self._activated[x] = self.relu(self.bn(x))
        return self._activated[x]

    def max_pool(self, name: str, x: Value) -> Value:
        """Add max pooling 3×3 with stride 2, which halves height and width, rounded up; return its top."""
        return self.builder.add("Pooling", name, x, pool="MAX", kernel_size=3, stride=2)

    def add(self, name: str, *terms: Value) -> Value:
        """Add an Eltwise layer that sums its bottoms; return its top."""
        return self.builder.add("Eltwise", name, *terms, operation="SUM")

    def multiply(self, name: str, *factors: Value) -> Value:
        """Add an Eltwise layer that multiplies its bottoms; return its top."""
        return self.builder.add("Eltwise", name, *factors, operation="PROD")

    def upsample(self, name: str, x: Value, like: Value) -> Value:
        """Add bilinear upsampling to the height and width of `like`; return its top."""
        if self.style.upsampling == "interp":
            return self.builder.add("Interp", name, x, like)
        return self._bilinear_deconvolution(name, x, like)

    def _bilinear_deconvolution(self, name: str, x: Value, like: Value) -> Value:
        """Add a Deconvolution with the fixed kernel of the `bilinear` filler, and a Crop to `like` if necessary."""
        size, target = x.known_shape[2:], like.known_shape[2:]
        factor = max(-(-b // a) for a, b in zip(size, target, strict=True))
        needs_crop = any(a * factor != b for a, b in zip(size, target, strict=True))
        upsampled = self.builder.add(
            "Deconvolution",
            f"{name}/deconv" if needs_crop else name,
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
        return self.builder.add("Crop", name, upsampled, like, axis=2, offset=0) if needs_crop else upsampled
