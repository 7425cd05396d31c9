"""Models and their versions: loading, unloading, warm-up, batching."""
