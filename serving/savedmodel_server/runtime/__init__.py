"""TensorFlow's C API in place of its Python package: sessions, tensors and the protos that they need."""
