"""What all conversions share: the net with its weights, preprocessing, and writing and loading model files."""
