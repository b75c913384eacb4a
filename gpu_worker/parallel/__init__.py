"""Ranks, and the exchange of tokens between them; every collective is the identity on one rank."""
