"""Replication of the report that the project began with: its faulty protocol, and its numbers beside ours.

Imports octdino; nothing in octdino imports this. docs/replication.md
"""
