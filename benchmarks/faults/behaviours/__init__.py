"""Servers that misbehave, by name, and how each does it."""
