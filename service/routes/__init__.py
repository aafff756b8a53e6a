"""REST and WebSocket routes, one file per noun."""
