"""A model and labelled pairs give one HTML page: figures, curves, slices, every mistake, and a map of the questions."""

from qpairs.evaluation.report.page import render as render
