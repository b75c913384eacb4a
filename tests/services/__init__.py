"""Real servers for tests: each starts in a moment, listens on this machine only, and is gone afterwards."""
