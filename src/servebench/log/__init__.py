"""What was asked and measured: the schema of a log, its identity, and the folders that logs lie in."""
