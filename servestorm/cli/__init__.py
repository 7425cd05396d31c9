"""The command line: the parser, its option types, exit codes, and one module a verb."""
