"""The gRPC API: HTTP/2 connections and the services."""
