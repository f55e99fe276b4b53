"""Tasks and their data: the task file, its records, and the token batches made of them."""
