"""The REST API: HTTP/1.1, paths, JSON in and out."""
