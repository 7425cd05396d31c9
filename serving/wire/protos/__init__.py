"""Generated protobuf messages, wire-compatible with the published ones; see the .proto files."""
