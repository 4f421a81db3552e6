"""The original project's command line, as a drop-in on this project's model and training parts."""
