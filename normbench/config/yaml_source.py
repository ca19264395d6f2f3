"""A Hydra config source that limits the size of a user's yaml files."""

from pathlib import Path

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.plugins.config_source import ConfigResult

from normbench.system.untrusted import yaml_text

SCHEME = "bounded"


class BoundedSource(FileConfigSource):
    """Reads the yaml files of a folder and refuses files that are too large.

    The limit applies to the size of the file and to its size with expanded aliases.
    """

    @staticmethod
    def scheme() -> str:
        return SCHEME

    def load_config(self, config_path: str) -> ConfigResult:
        """Load a yaml file. Raise Damaged if it is too large, Unreadable if no file."""
        path = Path(self.path, self._normalize_file_name(config_path))
        if path.exists():
            yaml_text(path)
        return super().load_config(config_path)


def address(folder: Path) -> str:
    """Return the entry for `folder` in Hydra's search path, and register its scheme."""
    SourcesRegistry.instance().register(BoundedSource)
    return f"{SCHEME}://{folder.resolve()}"
