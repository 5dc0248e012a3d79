"""What the student is taught: losses [B] of Outputs, and the objective that weighs them."""
