"""Vision layers: convolution, pooling, and other layers on images."""
