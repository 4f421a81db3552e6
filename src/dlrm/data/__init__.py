"""Raw rows -> prepared dataset -> batches."""
