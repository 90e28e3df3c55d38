"""Objectives: relations between the questions of a batch, the miners that select pairs, and the losses to minimise."""
