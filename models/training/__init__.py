"""The networks in Keras and in torch, how they are trained, and how weights are carried from one to the other."""
