"""Files in any store: paths, reads and whole writes, threads, errors in plain words, lineage."""
