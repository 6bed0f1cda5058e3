"""The model zoo: Residual Attention Networks, ResNet-50, ResNeXt-50 and their variants."""

from prototxt_gen.models.zoo import GENERATED, ZOO, build, config, model

__all__ = ["GENERATED", "ZOO", "build", "config", "model"]
