"""The sensor of the queue's requests."""
