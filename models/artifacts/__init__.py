"""Exported models: SavedModel and MAR, the proof that both are equal, the TorchServe handler, imported models."""
