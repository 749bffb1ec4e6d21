"""The TaskFlow faces of the operators."""
