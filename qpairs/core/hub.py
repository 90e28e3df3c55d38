"""Access to the Hugging Face Hub: one short request says whether it answers."""

from __future__ import annotations

from typing import Literal

TIMEOUT = 10.0  # seconds


def reachable(repository: str, kind: Literal["model", "dataset"]) -> bool:
    """Asks the Hub once for a repository, because the libraries that download from it retry for a minute.

    Args:
        repository: OWNER/NAME.
        kind: of the repository.

    Returns:
        False if the Hub does not answer: what its cache holds can still be read.

    Raises:
        LookupError: the Hub has no such repository, or only a private one.
        HfHubHTTPError: the Hub answers, but refuses for another reason.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    try:
        (HfApi().model_info if kind == "model" else HfApi().dataset_info)(repository, timeout=TIMEOUT)
    except (RepositoryNotFoundError, HFValidationError):
        raise LookupError(repository) from None
    except HfHubHTTPError:
        raise
    except Exception:  # the HTTP library decides which; there was no answer
        return False
    return True
