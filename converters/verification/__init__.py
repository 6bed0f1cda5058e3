"""Running one net in several runtimes (Caffe, PyTorch, ONNX Runtime, OpenCV) and comparing every blob."""
