"""Every fault that a watched folder is known to meet, injected for real, and what was lost."""
