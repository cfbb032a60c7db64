"""From the command line to what is measured: options, servers, loads, and searches."""
