"""Readers of clinical OCT files: one file per format, all as `Volume`; `registry` opens them by suffix and magic."""
