"""What waiting, landing and parsing cost, beside what a user would pick instead: ``make bench``."""
