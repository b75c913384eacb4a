"""Measurements, and the counts that they are compared with."""
