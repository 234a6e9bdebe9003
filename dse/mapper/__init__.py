"""The mapper: the minimum-energy mapping of a layer, with proof, over Timeloop's perfect-factor mapspace."""

from dse.mapper.explore import Found, search

VERSION = "1"
"""Part of every store key: changes whenever the mapper's answers may change."""

__all__ = ["VERSION", "Found", "search"]
