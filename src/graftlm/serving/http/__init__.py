"""The engine over HTTP, in the manner of the OpenAI API."""
