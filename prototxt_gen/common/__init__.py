"""What every other part may use: errors, files written safely, optional packages, printable text."""
