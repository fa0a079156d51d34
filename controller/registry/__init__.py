"""controller.registry: the one write path for all kinds. See registry.py."""

from controller.admission.types import Request, User
from controller.registry.registry import Registry, RegistrySettings
from controller.registry.types import DeleteOptions, Deletion, Patch, PatchType

__all__ = ["DeleteOptions", "Deletion", "Patch", "PatchType", "Registry", "RegistrySettings", "Request", "User"]
