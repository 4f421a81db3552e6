"""One account of work and one machine: what a run takes, and where its tables lie."""
