"""Every form of an export in a table: the parts of `benchmarks/export_table.py`."""
