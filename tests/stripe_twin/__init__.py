"""A stand-in for Stripe over HTTP: the part of its API that the site uses, its payment page, and its webhooks.

Requests are held against the SDK's own types for parameters, and answers against its types for objects
(`shapes.py`), so that the twin cannot accept what Stripe does not know.
"""
