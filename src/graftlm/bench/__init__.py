"""Measurements of the user's own machine, side by side with what users would pick instead."""
