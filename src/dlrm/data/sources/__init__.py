"""Where raw rows come from, as frames; a source says its columns where its format does."""
