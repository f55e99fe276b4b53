"""Families of the ecosystem as values, and the reading of their checkpoints."""
