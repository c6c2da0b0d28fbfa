"""One run of `benchmarks/latency.py`: rows that take their turn in rounds."""
