"""One trained model on many runtimes: `trained` describes it, each other file runs it its way."""
