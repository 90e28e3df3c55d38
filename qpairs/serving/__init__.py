"""A model and an index to an HTTP application."""
