"""Caffe to ONNX."""
