"""The peers that are measured beside us: the original, torch's tables and FBGEMM's."""
