"""dlrm."""
