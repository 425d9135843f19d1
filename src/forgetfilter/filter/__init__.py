"""Algorithm 1: learn, review, measure what was forgotten, cut."""
