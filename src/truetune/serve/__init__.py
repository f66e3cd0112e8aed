"""Answering: `engine` generates, `chat` is the conversation in a terminal. Never imports `train`."""
