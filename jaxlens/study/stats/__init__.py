"""Estimators and their intervals; nothing here knows the lens."""
