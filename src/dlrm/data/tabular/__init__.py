"""Tables in: any CSV, TSV, Parquet or libsvm file, and frames, up to a prepared dataset."""
