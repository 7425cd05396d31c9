"""Recorded traffic as a schedule: traces in the formats of public data sets and tools, read as their authors meant."""
