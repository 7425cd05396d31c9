"""One call: its tensors, its inference, and the bridge between the event loop and the worker threads."""
