"""Quality beside latency: the parts of `benchmarks/frontier.py`."""
