"""Arrival processes: when each request is due, as pure functions of a seed; recorded traces among them."""
