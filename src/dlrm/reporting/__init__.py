"""Rooms to be furnished."""
