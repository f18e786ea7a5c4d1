"""Uplift, and which content for whom: learned from a randomised log."""
