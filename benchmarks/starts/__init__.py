"""From nothing to the first frame: the parts of `benchmarks/startup.py`."""
