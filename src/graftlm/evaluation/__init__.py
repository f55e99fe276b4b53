"""What a model is worth on a task: metrics of its predictions, test loss and source gain, each with an interval."""
