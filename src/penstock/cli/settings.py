"""From parsed arguments to `Settings`: the one place that looks at the environment."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from penstock.cli.parser import config_flags
from penstock.core.settings import Settings, resolve


def read(arguments: argparse.Namespace, models: Sequence[str]) -> Settings:
    """All layers of settings; `models` replace those of the config file. Raises ConfigError."""
    return resolve(models=models, file=arguments.config, environment=os.environ, flags=config_flags(arguments))
