"""Pictures: reads and checks inputs, lands outputs, makes previews. This layer must never know the queue."""
