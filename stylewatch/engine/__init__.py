"""The method, and photos as arrays and back. No files but weights, no console, no config."""
