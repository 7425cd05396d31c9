"""Networks: each once in Keras and once in torch, with a table of their layers by which weights are carried."""
