"""Programs that people run by hand; the worker imports none of them."""
