"""One model over several processes: tables spread over them, the rest of the model copied."""
