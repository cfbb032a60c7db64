"""Numbers from logs: of a request, of a point, how well they are known, and which of them may decide."""
