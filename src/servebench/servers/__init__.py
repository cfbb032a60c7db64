"""The servers under test: launched or attached to, called, and stopped. One file an engine in backends/."""
