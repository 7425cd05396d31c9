"""Containers of a Docker Engine, and compose projects."""
