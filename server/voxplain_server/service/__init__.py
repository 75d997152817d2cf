"""The gRPC front: receive, run, send, explain, catalog, health."""
