"""What people, services and other programs see: events in, words and pictures out."""
