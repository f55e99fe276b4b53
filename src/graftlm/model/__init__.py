"""The model: two stacks, a bridge between them, and how the decoder reads it. Knows no files and no network."""
