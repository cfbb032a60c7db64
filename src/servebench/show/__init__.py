"""Numbers for people: the terminal, advice, spreadsheets, comparisons and the report."""
