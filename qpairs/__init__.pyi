"""The public names: type checkers read this file, and `__init__.py` loads them from here when they are used."""

from . import metrics as metrics
from . import sklearn as sklearn
from .annotation.annotate import Annotator as Annotator
from .annotation.annotate import annotate as annotate
from .annotation.endpoint import open_endpoint as open_endpoint
from .config import Config as Config
from .core.exceptions import UserError as UserError
from .core.progress import Progress as Progress
from .data.labels import read_labels as read_labels
from .data.pairs import Pairs as Pairs
from .data.pairs import pairs_from_texts as pairs_from_texts
from .data.sources import load_pairs as load_pairs
from .data.splits import split_pairs as split_pairs
from .evaluation.annotators import find_consensus as find_consensus
from .evaluation.annotators import measure_agreement as measure_agreement
from .evaluation.calibrate import calibrate as calibrate
from .evaluation.combine import combine_folders as combine_folders
from .evaluation.evaluate import Report as Report
from .evaluation.evaluate import evaluate as evaluate
from .evaluation.predict import predict as predict
from .evaluation.robustness import probe as probe
from .experiments.compare import compare as compare
from .experiments.learning_curve import LearningCurve as LearningCurve
from .experiments.learning_curve import learning_curve as learning_curve
from .experiments.results import Comparison as Comparison
from .export.export import export_checkpoint as export_checkpoint
from .export.parity import Parity as Parity
from .models.base import Encoder as Encoder
from .models.base import Model as Model
from .models.base import load as load
from .models.bi_encoder import Checkpoint as Checkpoint
from .models.bi_encoder import load_checkpoint as load_checkpoint
from .models.bi_encoder import save_checkpoint as save_checkpoint
from .models.predictions import Predictions as Predictions
from .objectives.losses import LOSSES as LOSSES
from .objectives.miners import MINERS as MINERS
from .objectives.relations import Relation as Relation
from .retrieval.corpus import DedupeResult as DedupeResult
from .retrieval.corpus import dedupe_corpus as dedupe_corpus
from .retrieval.dedupe import dedupe as dedupe
from .retrieval.embed import embed as embed
from .retrieval.embeddings import Embeddings as Embeddings
from .retrieval.embeddings import open_shards as open_shards
from .retrieval.index import Index as Index
from .retrieval.index import build_index as build_index
from .retrieval.index import open_index as open_index
from .retrieval.memory import index_in_memory as index_in_memory
from .retrieval.search import answers_table as answers_table
from .retrieval.search import search as search
from .training.fit import train as train

__version__: str
__all__: list[str]
