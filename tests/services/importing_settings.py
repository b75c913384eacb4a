"""What `make run` uses, and links may lead to this machine: the only one that tests call."""

from seedvr_site.settings.dev import *  # noqa: F403

IMPORT_ADDRESS_POLICY = "restorations.links.policy.loopback_too"
