"""What fewer bits cost in accuracy, against the noise of seeds, and what they bring."""
