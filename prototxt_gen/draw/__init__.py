"""A net as a picture: DOT, SVG, PNG or an interactive HTML page."""
