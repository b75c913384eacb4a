#!/usr/bin/env python3
"""Django's command-line entry point; defaults to the settings for one machine."""

import os
import sys

from django.core.management import execute_from_command_line

from accounts import scope

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "seedvr_site.settings.dev")
    # Whoever may run commands here is an operator.
    with scope.across_workspaces():
        execute_from_command_line(sys.argv)
