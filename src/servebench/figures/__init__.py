"""What the plot scripts share: pages, curves, labels and themes."""
