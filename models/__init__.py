"""What is served: data sets, the networks in Keras and in torch, training, parity and export."""
