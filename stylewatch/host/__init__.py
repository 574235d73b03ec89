"""The daemon: from a photo that has settled to its published result, by way of the ledger."""
