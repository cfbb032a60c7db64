"""A server's life: launch or attach, ready, watch, stop."""
