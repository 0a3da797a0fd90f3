"""How fast octdino is beside other ways to do the same, and beside what the machine can do: `python -m benchmarks`."""
