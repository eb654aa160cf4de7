"""One frozen, validated settings object; every limit has a name and a unit. Read by `app` only."""

from ingest_service.config.settings import (
    PREFIX,
    SETTINGS,
    Setting,
    SettingError,
    Settings,
    load_settings,
)
from ingest_service.config.targets import TargetSetting

__all__ = ["PREFIX", "SETTINGS", "Setting", "SettingError", "Settings", "TargetSetting", "load_settings"]
