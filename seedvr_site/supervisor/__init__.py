"""Everything of the product in one command, for one machine: what `manage.py serve` runs.

    parts     what is started: command, environment, how one sees that it is ready, how it is stopped
    child     one part at work: its process, its restarts
    guard     a small process that ends the children when the supervisor itself is killed
    terminal  what a person sees: one line for each mail, warning and error
    supervisor  start in order, keep running, stop in reverse order

Children lead sessions of their own, so that Ctrl-C reaches the supervisor alone.
"""
