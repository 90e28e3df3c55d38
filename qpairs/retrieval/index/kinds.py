"""The kinds of index that FAISS and Milvus share, and their sizes."""

from __future__ import annotations

import math

KINDS = {
    "exact": "compares all",
    "ivf": "compares those in the nearest lists, in half precision",
    "hnsw": "follows a graph of neighbours, in half precision",
}  # name -> a few words
EFFORTS = {
    "exact": (0,),
    "ivf": (8, 16, 32, 64, 96, 128, 192, 256, 512, 1024),  # lists that a search reads
    "hnsw": (16, 32, 64, 128, 256, 512, 1024),  # candidates that a search keeps
}  # kind -> settings of a search, the fastest first
GOAL = 0.98  # recall at which the effort is high enough, a little above what is promised
SMALL = 20_000  # vectors, up to which all are compared in a few milliseconds
CANDIDATES = 128  # for the neighbours of a vector, when a graph is built


def kind_for(count: int) -> str:
    """The kind of index for so many vectors."""
    return "exact" if count <= SMALL else "ivf"


def lists_for(count: int) -> int:
    """Into how many lists so many vectors are divided, so that finding a list takes about as long as reading it.

    >>> lists_for(1_000_000)
    4000
    """
    return max(1, min(round(4 * math.sqrt(count)), count // 8))
