"""Videos from links that people paste: an address of somebody's choice, called from inside our network.

`policy` says which addresses may be called, `fetching` calls them, `imports` makes videos of what comes.
"""
