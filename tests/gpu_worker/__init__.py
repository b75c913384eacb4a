"""Tests of the worker side: the local endpoint, the handler, the engines."""
