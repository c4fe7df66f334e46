"""Weights on the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from fastnets.errors import InputError, MissingDependencyError

PREFIX = "hf-hub:"
_FILES = ("model.safetensors", "pytorch_model.bin")  # what timm and transformers call them, the safer first


def download(reference: str) -> Path:
    """The local copy of "hf-hub:owner/name", "…@revision" or "…:file", fetched once and kept in the Hub's cache.

    Without a file, model.safetensors or else pytorch_model.bin. HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE
    mean what they mean to huggingface_hub.

    Raises InputError where there is no such repository, revision or file, or no connection and no copy.
    """
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import (
            EntryNotFoundError,
            HfHubHTTPError,
            HFValidationError,
            LocalEntryNotFoundError,
        )
    except ImportError as error:
        raise MissingDependencyError(f"{reference} needs huggingface_hub: pip install 'fastnets[hub]'") from error

    repository, _, file = reference.removeprefix(PREFIX).partition(":")
    repository, _, revision = repository.partition("@")
    try:
        for name in (file,) if file else _FILES:
            try:
                return Path(hf_hub_download(repository, name, revision=revision or None))
            except LocalEntryNotFoundError:
                raise
            except EntryNotFoundError:
                continue
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{reference} cannot be fetched: {reason}: check the name, or pass a file") from error
    wanted = file or " or ".join(_FILES)
    raise InputError(f"{reference} has no {wanted}: name its file, as in {PREFIX}{repository}:weights.safetensors")
