"""What tests of pages share: one browser a process, and pages in it."""

from view.browser import chromium
from view.seen import show

__all__ = ["chromium", "show"]  # fixtures
