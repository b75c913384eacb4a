"""Tests: the site, the worker, the whole product in a browser."""
