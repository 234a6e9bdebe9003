"""The hardware half of ENOS: network -> layers -> optimal mappings -> energy table."""

__version__ = "0.1.0"
