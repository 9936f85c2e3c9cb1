"""From parsed arguments to `Settings`: the one place that looks at the environment."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from penstock.cli.parser import config_flags
from penstock.core.settings import Settings, resolve, with_api_keys


def read(arguments: argparse.Namespace, models: Sequence[str], *, with_keys: bool = False) -> Settings:
    """All layers of settings; `models` replace those of the config file. Raises ConfigError.

    `with_keys`: upstreams are to be called, so the variables that hold their keys must be set.
    """
    settings = resolve(models=models, file=arguments.config, environment=os.environ, flags=config_flags(arguments))
    return with_api_keys(settings, os.environ) if with_keys else settings
