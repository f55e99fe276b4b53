"""Writing targets: batched generation from texts, and the key/value prefix for the stock LLM."""
