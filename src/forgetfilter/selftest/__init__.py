"""What the filter cannot see, measured on the user's own job: canaries planted in a copy, and signs of the whole."""
