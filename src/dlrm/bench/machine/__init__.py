"""The machine: what it is, what it can do at most, and where that is kept."""
