"""The report: a results folder as one HTML page."""
