"""The demo: several ways to teach the embedded model a task, one after the other, and what they come to."""
