"""Compute processes: spawned, leased, cancelled, replaced."""
