"""JSON bodies of requests and replies: to tensors and back."""
