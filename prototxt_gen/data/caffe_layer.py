"""The import path of `AugmentedData` that generated train_val prototxts name; see `augmented_data_layer`."""

from prototxt_gen.data.augmented_data_layer import AugmentedData

__all__ = ["AugmentedData"]
