"""HTML pages made of run records; no model is loaded."""
