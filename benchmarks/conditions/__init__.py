"""What figures depend on: the machine, its clocks and its power."""
