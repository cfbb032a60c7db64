"""What every program of ours does with its command line: options, bad input in one line, signals, keys."""
