"""Serves a model and an index as an HTTP application."""
