"""Names to sentence encoders of stock modules: transformers, word vectors, towers."""
