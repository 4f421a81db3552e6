"""The commands `dlrm trace ...`: the shape of traffic, measured, modelled, generated, compared."""
