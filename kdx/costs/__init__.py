"""What a network costs: parameters, multiply-accumulates, time, energy. Knows torch and nothing of kdx."""
