"""Relations, miners and losses: what is known of n x n questions, and a scalar to minimise."""
