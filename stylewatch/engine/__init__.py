"""The method: arrays in, arrays out. No files, no console, no settings beyond their numbers."""
