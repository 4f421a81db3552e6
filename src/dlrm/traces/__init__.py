"""Streams of table ids: read, measured, described by a model that can be shared, and made again."""
