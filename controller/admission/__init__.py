"""controller.admission: what every write has to pass, and what new objects are given. See chain.py."""
