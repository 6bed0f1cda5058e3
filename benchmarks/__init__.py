"""Benchmarks: `make benchmarks` runs them all and writes their tables into benchmarks/README.md."""
