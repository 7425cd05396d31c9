"""VGG-16 (Simonyan and Zisserman 2014): thirteen 3x3 convolutions and three dense layers."""
