"""Evaluation on data sets and classification of image files, with the same preprocessing in every runtime.

net_data_layer        source and preprocessing of the TEST data layer of a net
image_preprocessing   an image to the crops that the net gets: the centre crop, or ten crops
predictors            PyTorch, ONNX Runtime and real Caffe: a batch in, scores out
converted_predictors  the same for converted files (.onnx, .pt2, folder)
scores                scores compared with labels: top-1, top-5, confusion matrix
classification        classes and attention masks of single image files
attention_maps        attention masks drawn over images
eval_data             data set and preprocessing from the options of the command line

Importing this package imports none of these modules.
"""

from __future__ import annotations
