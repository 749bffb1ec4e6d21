"""A person's review of edited pictures: what is shown, and what becomes of the answer."""
