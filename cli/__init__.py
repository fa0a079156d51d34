"""The command `wherry`: sets a cluster up, and the daily verbs of kubectl and Docker on top of it.

`main.py` knows the commands by name only and imports one when it is called, so that `wherry --help` is instant.
"""
