"""The TorchServe handler that goes into an archive, and a process that asks an archive's handler for its answers."""
