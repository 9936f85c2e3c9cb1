"""Real HTTP servers on free ports, each speaking one vendor's dialect with answers written beforehand."""
