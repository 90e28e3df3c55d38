"""Training: samplers and batches, hard negatives, teachers, the Hugging Face Trainer, and runs from config to model."""
