"""ResNet-50 (He and others 2015) in its two common forms, which are different networks."""
