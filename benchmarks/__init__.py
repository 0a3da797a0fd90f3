"""Benchmarks: speed of octdino compared with other libraries and with the machine's limits; `python -m benchmarks`."""
