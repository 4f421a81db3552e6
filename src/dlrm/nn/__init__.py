"""Layers: MLP, embedding collection, interaction."""
