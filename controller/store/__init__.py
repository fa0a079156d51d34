"""The store's front door: what the rest of the controller imports."""

from controller.store.leadership import Leadership
from controller.store.query import Page, Query
from controller.store.store import Store, StoreConfig
from controller.store.watchers import Watcher

__all__ = ["Leadership", "Page", "Query", "Store", "StoreConfig", "Watcher"]
