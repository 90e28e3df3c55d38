"""A model and labelled pairs to a report: verdict, mistakes, robustness, one HTML page."""
