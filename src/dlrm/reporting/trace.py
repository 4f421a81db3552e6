"""The page of `dlrm trace compare`."""


def write(*a):
    """Write."""
