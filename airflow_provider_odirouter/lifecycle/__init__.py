"""The life of one paid request, on a worker and in a trigger."""
