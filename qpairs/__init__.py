"""qpairs: decides whether two questions ask the same, and finds the duplicates in a collection of questions.

>>> import qpairs
>>> model = qpairs.train(data="sample", encoder="static")
>>> qpairs.evaluate(model, "more_pairs.csv").f1
"""

import lazy_loader

__version__ = "0.1.0"

# The public names are in __init__.pyi, each once; a module is imported when one of its names is used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
