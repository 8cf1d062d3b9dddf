"""The demo: a support log, three desks that answer it, and the run through the cache."""
