"""Raw log -> prepared dataset -> batches."""
