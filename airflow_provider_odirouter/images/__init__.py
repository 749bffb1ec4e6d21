"""Pictures: reading and checking inputs, landing outputs. This room must never know the queue."""
