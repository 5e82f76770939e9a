"""Figures: numbers first, then SVG or matplotlib, and the palette that they share."""
