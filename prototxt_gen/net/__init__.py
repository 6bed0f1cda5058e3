"""A net as prototxt text and as layers: reading, upgrading, building, rendering, solvers, and rules about its blobs."""
