"""What serves it: the engines, the backends that run them, and the embedded SavedModel server."""
