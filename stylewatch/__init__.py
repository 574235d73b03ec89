"""stylewatch: drop a photo into a folder, get a painting."""

__version__ = "0.1.0"
