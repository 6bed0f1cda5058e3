"""Loss layers, and Accuracy."""
