"""Answers at inference: greedy and sampled generation, classifier-free guidance, the server."""
