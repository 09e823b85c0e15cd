"""The contenders: one module each, named as on the command line, with a `TASKS` table of what it can run."""
