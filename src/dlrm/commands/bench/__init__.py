"""`dlrm bench`: what this machine can do, how close we are, and what would change it."""
