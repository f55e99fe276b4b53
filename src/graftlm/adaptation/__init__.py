"""From language models to an encoder–decoder, and the small artifacts that are tuned on it."""
