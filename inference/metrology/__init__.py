"""What is measured on height maps: registration, profiles, facets, steps, spirals, texture, comparison with AFM."""
