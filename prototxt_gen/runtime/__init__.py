"""A net as a PyTorch module that runs any prototxt."""
