"""The one training engine that every stage shares."""
