"""The path of `AugmentedData` that stands in generated train_val files; the class is in `augmented_data_layer`."""

from prototxt_gen.data.augmented_data_layer import AugmentedData

__all__ = ["AugmentedData"]
