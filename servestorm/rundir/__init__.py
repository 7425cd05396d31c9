"""The run directory: the only room that knows its file names, their shapes and columns."""
