"""Where a model lies: a local folder, the model shipped in the package, or a download from the hub."""

from pathlib import Path

from graftlm.errors import CheckpointError

EMBEDDED = {"embedded-lm": "embedded_lm"}
"""Names of shipped models -> folders in the package's assets."""

FILES = ("*.json", "*.safetensors", "*.model", "*.spm", "*.txt", "*.jinja")


def locate(source: str | Path) -> Path:
    """Folder of a model. Raises: CheckpointError when there is none and the hub cannot give it."""
    if str(source) in EMBEDDED:
        return Path(__file__).parent.parent / "assets" / EMBEDDED[str(source)]
    name = str(source)
    if not name.strip():
        raise CheckpointError("The name of the model is empty; give a folder or a hub name.")
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise CheckpointError(f"{source} is not a folder of a model; give one, a hub name, or {', '.join(EMBEDDED)}.")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(FILES)))
    except Exception as error:
        # Offline, unknown, gated and interrupted downloads raise types of several libraries.
        raise CheckpointError(
            f"{name} is neither a local folder nor could it be fetched from the hub ({type(error).__name__}); "
            f"check the name, or use {', '.join(EMBEDDED)}."
        ) from error
