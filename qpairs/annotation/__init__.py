"""Pairs of a corpus labelled by a large language model: endpoint, prompt, journal of answers, labels."""
