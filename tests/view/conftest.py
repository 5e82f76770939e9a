"""What tests of pages of prompts share."""

from view.seen import show

__all__ = ["show"]  # fixture
