"""Normalization layers: batch normalization in all its forms, LRN, MVN and others."""
