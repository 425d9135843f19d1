"""Making a model unlearn personal data."""
