"""Caffe to PyTorch: a folder with a model.py that does not import prototxt-gen and its weights, or a .pt2 file."""
