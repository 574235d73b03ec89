"""One job in a process of its own, and what runs such processes."""
