"""Charts as inline SVG: their theme, and those that several pages have."""
