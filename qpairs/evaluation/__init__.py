"""From a model and labelled pairs to a report: verdict, mistakes, robustness, an HTML page."""
