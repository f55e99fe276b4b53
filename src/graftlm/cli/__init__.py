"""The command line: one file per verb; parse, build, call."""
