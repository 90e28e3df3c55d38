"""Questions to embeddings, to an index, to hits and to the duplicates of a corpus."""
