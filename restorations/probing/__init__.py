"""Reading of files that strangers sent, in a process that can do nothing but compute.

`inspector.examine` is called by the site: it starts `child` as a process of its own, gives it the file's bytes as it
asks for them, and ends it when its time is over. `probe` is what runs there: nothing in it knows Django, a database
or a store. `confinement` takes everything else away from the process first.
"""
