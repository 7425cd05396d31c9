"""From a run directory to its results: pure functions, no file is written and nothing is started."""
