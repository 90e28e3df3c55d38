"""Checkpoints in other forms: ONNX graphs, word vectors, a model on the Hugging Face Hub."""
