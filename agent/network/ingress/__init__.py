"""Ingress: HTTP from outside to Services, by an HAProxy that the agent configures and supervises. See part.py."""
