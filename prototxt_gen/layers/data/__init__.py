"""Data layers: they make blobs from data sets, files or the calling program."""
