"""What the outer loop buys: a study of algorithms and methods on held-out detectors."""
