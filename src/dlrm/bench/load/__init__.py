"""Load on a server: requests that are ready, connections that are kept, MLPerf's generator."""
