"""Two runs against each other: what changed, and whether the change is a regression."""
