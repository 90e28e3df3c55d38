"""Encoders: texts to unit vectors. A name becomes a `SentenceTransformer` of stock modules, and texts token ids."""
