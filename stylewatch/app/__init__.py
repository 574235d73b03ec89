"""Whole programs put together from the parts: serve, paint, look, examine, install."""
