"""A checkpoint to ONNX graphs or word vectors, and to the Hugging Face Hub."""
