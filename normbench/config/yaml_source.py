"""A Hydra config source that reads a user's yaml files within bounds."""

from pathlib import Path

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.plugins.config_source import ConfigResult

from normbench.system.untrusted import yaml_text

SCHEME = "bounded"


class BoundedSource(FileConfigSource):
    """A folder of yaml files; refuses a file that is too large or expands too far."""

    @staticmethod
    def scheme() -> str:
        return SCHEME

    def load_config(self, config_path: str) -> ConfigResult:
        """Raises Damaged and Unreadable as `untrusted.yaml_text` does."""
        path = Path(self.path, self._normalize_file_name(config_path))
        if path.exists():
            yaml_text(path)
        return super().load_config(config_path)


def address(folder: Path) -> str:
    """The entry for `folder` in Hydra's search path."""
    SourcesRegistry.instance().register(BoundedSource)
    return f"{SCHEME}://{folder.resolve()}"
