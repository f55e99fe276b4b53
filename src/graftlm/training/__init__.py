"""Training on transformers' Trainer, with parts of the model frozen."""
