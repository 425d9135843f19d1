"""Guided answers over HTTP, in the manner of OpenAI's API."""
