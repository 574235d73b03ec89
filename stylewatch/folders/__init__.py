"""Both ends of the way: photos that arrive and settle, results that are published."""
