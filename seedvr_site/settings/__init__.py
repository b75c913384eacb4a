"""Settings: `base` holds all of them; `dev`, `test` and `prod` hold only what differs."""
