"""A config to a checkpoint: batches, hard negatives, teachers, the Hugging Face Trainer."""
