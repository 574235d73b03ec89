"""What the daemon keeps in its state directory: ledger, checkpoints, locks."""
