"""Networks and the differentiable twin in torch: what is trained or fitted. Never imported live."""
