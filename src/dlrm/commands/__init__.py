"""The verbs: one file each, a plain function that returns its results."""
