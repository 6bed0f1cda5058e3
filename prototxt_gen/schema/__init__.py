"""The schema of prototxts and caffemodels: typed messages, their fields, and each fork's field numbers."""
