"""How the time of a frame grows: the parts of `benchmarks/scaling.py`."""
