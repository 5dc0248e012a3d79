"""Cost of a network: parameters, multiply-accumulates (MACs), latency, energy. Depends on torch only, not on other rooms."""
