"""Ranks of one host, as processes."""
