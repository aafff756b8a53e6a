"""What is fitted rather than inferred: heights and instrument parameters by gradients. Needs torch."""
