"""The life of one paid request, whoever holds it. Imported by no hook, no image code and no store."""
