"""A server whose times are known, and the client held against it."""
