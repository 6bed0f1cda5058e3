"""From Caffe nets to other formats: ONNX, PyTorch, and other forms of Caffe."""
