"""Operators with more than one implementation; each chooses its backend once, by rules that it states."""
