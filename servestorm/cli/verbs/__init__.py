"""One module a verb: `run(arguments) -> exit code`. Imported only when its verb runs."""
