"""How the model sets are made: surfaces, losses, optimisers, and export to ONNX. Never needed to run."""
