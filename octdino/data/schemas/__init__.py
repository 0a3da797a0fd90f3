"""Schemas of all files that one stage writes and another reads: tables, JSON metadata, the store's attributes."""
