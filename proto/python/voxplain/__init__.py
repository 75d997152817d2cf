"""The contract as Python sees it, shared by client and server."""
