"""EfficientNet-Lite0 (Liu and others 2020): inverted residual blocks without squeeze-and-excitation, with ReLU6."""
