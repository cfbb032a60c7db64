"""What the plot scripts share: from logs to the curves of each figure, drawing them, and the page around them."""
