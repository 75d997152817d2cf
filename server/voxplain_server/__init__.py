"""The server: a gRPC front without torch, and compute workers with it."""
