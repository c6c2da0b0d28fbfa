"""The roof of a machine: what it could do at most, and what a graph asks of it."""
