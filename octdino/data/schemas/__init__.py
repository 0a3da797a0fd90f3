"""What every file holds that one stage writes and another reads: tables, JSON cards, the store's attributes."""
