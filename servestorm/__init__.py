"""The study: command line, plan, runner, run store, statistics and report."""

__version__ = "0.1.0"
